"""The guided tour's text: a few sentences in English, the same in Spanish, and a few lines of Python.

The tour asks five questions of whatever text is shown (`static/tour.js`); this one has what all of them need:
two languages whose experts can be compared, names and commas that stand in both, and more tokens than a
window of mini-oss holds.
"""

PARTS = {
    "English": "Once upon a time there was a king who had three daughters, Ana, Clara and Julia, and he "
    "loved the youngest more than the others.",
    "Spanish": " Había una vez un rey que tenía tres hijas, Ana, Clara y Julia, y quería a la más joven más "
    "que a las otras.\n",
    "Python": "def total(numbers):\n    result = 0\n    for number in numbers:\n        result += number\n"
    "    return result\n",
}
TEXT = "".join(PARTS.values())
