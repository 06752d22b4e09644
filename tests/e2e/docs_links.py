#!/usr/bin/python3
"""docs_links.py TOP: every relative link in README.md and docs/**/*.md leads to a file, and to a heading where it names one.

Every page of docs/ must also be linked by the README. Headings have the names that GitHub gives them: small letters, no
punctuation, hyphens for blanks, -1, -2 ... behind those that came before. Links in code are not links. Prints what is
wrong, a line each, or how many links were followed; exit status 1 when anything is wrong.
"""
import pathlib
import re
import sys
import urllib.parse

LINK = re.compile(r"(?<!\\)\[(?:[^\[\]]|\[[^\]]*\])*\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")


def prose(text):
    """The page without its blocks and words of code and without its comments; the lines stay where they are."""
    blank = lambda m: re.sub(r"[^\n]", " ", m[0])
    text = re.sub(r"^(```|~~~)[^\n]*\n.*?^\1[ \t]*$", blank, text, flags=re.S | re.M)
    text = re.sub(r"<!--.*?-->", blank, text, flags=re.S)
    return re.sub(r"(`+)(?!`).+?(?<!`)\1(?!`)", blank, text)


def anchors(text):
    """The names of a page's headings."""
    found = set()
    text = re.sub(r"^(```|~~~)[^\n]*\n.*?^\1[ \t]*$", "", text, flags=re.S | re.M)
    for heading in re.findall(r"^#{1,6}[ \t]+(.*?)[ \t]*#*$", text, flags=re.M):
        heading = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        name = base = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        n = 0
        while name in found:
            n += 1
            name = "%s-%d" % (base, n)
        found.add(name)
    return found


def main():
    top = pathlib.Path(sys.argv[1]).resolve()
    pages = [top / "README.md", *sorted((top / "docs").rglob("*.md"))]
    texts = {p: p.read_text(encoding="utf-8") for p in pages}
    wrong, n, of_readme = [], 0, set()
    for page in pages:
        text = prose(texts[page])
        for m in LINK.finditer(text):
            target, _, anchor = m[1].partition("#")
            if re.match(r"[a-z][a-z0-9+.-]*:", target):
                continue
            n += 1
            place = "%s:%d: " % (page.relative_to(top), text.count("\n", 0, m.start()) + 1)
            path = (page.parent / urllib.parse.unquote(target)).resolve() if target else page
            if page == pages[0]:
                of_readme.add(path)
            if not path.is_relative_to(top) or not path.exists():
                wrong.append(place + "there is no " + target)
            elif anchor and path.suffix == ".md" and anchor not in anchors(path.read_text(encoding="utf-8")):
                wrong.append(place + "there is no heading #%s in %s" % (anchor, path.relative_to(top)))
    wrong += ["README.md: does not link %s" % p.relative_to(top) for p in pages[1:] if p not in of_readme]
    print("\n".join(wrong) or "%d links in %d pages" % (n, len(pages)))
    sys.exit(1 if wrong or not n else 0)


main()
