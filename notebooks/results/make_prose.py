"""Write a folder of English prose: the paragraphs in the documentation of Debian's packages.

    apt-get update && pip install lxml
    python notebooks/results/make_prose.py FOLDER [--debs FOLDER]

For runs on another text than Python: 101 MB, most of it on software, 23 on the Bible. Needs Debian
12 and a few minutes; another release has other versions, so another text. Nothing is installed. A
file is a document, a long one several. Of each the paragraphs of prose are kept (see ``is_prose``),
of equal ones the first. Prints what is kept of each package, and the fingerprint that runs store.
"""

import argparse
import gzip
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zlib
from pathlib import Path

from tqdm import tqdm

from minidiff.data import open_data

try:
    from lxml import etree, html
except ImportError:
    sys.exit("error: lxml, which reads HTML, is not installed: pip install lxml")

PACKAGES = """
ada-reference-manual-2012 anarchism apache2-doc bash-doc bind9-doc c++-annotations-html cfi-en
debian-handbook debian-policy dict-foldoc erlang-doc exim4-doc-html git-doc jargon-text
libreoffice-help-en-us linux-doc-6.1 mh-book octave-doc perl-doc postfix-doc postgresql-doc-15
python-django-doc python-sqlalchemy-doc python3.11-doc r-doc-html racket-doc sqlite3-doc
sword-comm-mhcc sword-comm-tdavid sword-text-kjv sword-text-web zsh-doc
"""
MARKUP = re.compile(r"\.(html?|[bc]zz)$")
PLAIN = re.compile(r"\.pod$|\.dict\.dz$|/jargon\.txt\.gz$")  # other .txt is a package's HTML again
LEFT_OUT = re.compile(  # sources, lists of changes, and translations, which are often half done
    r"/(_sources|_modules|src|examples?|changes|releases?|genindex)\b|/NEWS|/perl\d*delta|perlhist"
    r"|changelog|notes\b|/(?!en)[a-z]{2}[-_][a-z]{2}/|\.(?!en)[a-z]{2}(_[a-z]{2})?\.html",
    re.IGNORECASE,
)
DROPPED = "script style pre nav header footer form math svg note"
BLOCKS = (
    "p li dd dt div blockquote section article h1 h2 h3 h4 h5 h6 br hr ul ol dl table caption tr "
    "td th title item l lg chapter milestone body"
)
BREAK = "\ue000"  # in no document: where a block begins or ends
BINDING = (
    "a about after all also am an and any are as at be because been before being but by can could "
    "did do does each for from had has have he her him his how i if in into is it its may more "
    "must my no not of on one only or other our out over shall she should so some such than that "
    "the their them then there these they this those thou thy to two under until up upon us was we "
    "were what when where which while who will with would you your"
)
FUNCTION_WORDS = {*BINDING.split()}
CUT = 60_000  # characters of a document, after which the next one begins
LEAST = 500  # characters of a document


def main(folder, debs):
    if folder.exists():
        sys.exit(f"error: {folder} is there already: give the name of a new folder")
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        sys.exit("error: apt-get and dpkg-deb are not here: run this on Debian 12, or in its image")
    debs.mkdir(parents=True, exist_ok=True)
    seen = set()
    for package in (bar := tqdm(PACKAGES.split(), unit="package")):
        bar.set_postfix_str(package)
        deb, version = download(package, debs)
        count = size = 0
        for name, text in documents(package, deb, seen):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
            count, size = count + 1, size + len(text.encode())
        tqdm.write(f"{package} {version}: {count:,} documents, {size:,} bytes", sys.stdout)
    corpus = open_data(folder)
    print(f"{corpus.report}; fingerprint {corpus.fingerprint}")


def download(package, debs):
    """The package's file, and its version."""
    run = {"check": True, "text": True, "capture_output": True}
    try:
        subprocess.run(["apt-get", "download", package], cwd=debs, **run)
        (deb,) = debs.glob(f"{package}_*.deb")
        field = subprocess.run(["dpkg-deb", "--field", deb, "Version"], **run)
    except subprocess.CalledProcessError as error:
        lines = [line for line in error.stderr.splitlines() if line.startswith(("E:", "dpkg"))]
        sys.exit(f"error: {package}: {' '.join(lines)} (needs Debian 12, and apt-get update)")
    except ValueError:
        sys.exit(f"error: {debs} holds several versions of {package}: remove the old ones")
    return deb, field.stdout.strip()


def documents(package, deb, seen):
    """Yield (name, text) of a package's documents; adds the keys of their paragraphs to seen."""
    process = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE)
    with process, tarfile.open(fileobj=process.stdout, mode="r|") as archive:
        for member in filter(tarfile.TarInfo.isfile, archive):
            path = member.name.removeprefix("./usr/share/")
            find = of_markup if MARKUP.search(path) else of_text if PLAIN.search(path) else None
            if find is None or LEFT_OUT.search(path):
                continue
            pieces = [""]
            for paragraph in filter(is_prose, find(unpacked(path, archive.extractfile(member)))):
                key = re.sub(r"[\W\d_]+", "", paragraph).lower()
                if key not in seen:
                    seen.add(key)
                    pieces += [""] * (len(pieces[-1]) > CUT)
                    pieces[-1] += f"{paragraph}\n\n"
            for i, text in enumerate(pieces):
                if len(text) >= LEAST:
                    yield f"{package}/{path}.{i}.txt", text


def unpacked(path, file):
    """The text of a file: gzip, or zlib streams with padding between them, as SWORD has them."""
    data = file.read()
    if path.endswith((".gz", ".dz")):
        data = gzip.decompress(data)
    if path.endswith("zz"):
        texts = []
        while (start := data.find(b"x\x9c")) >= 0:
            stream = zlib.decompressobj()
            texts.append(stream.decompress(data[start:]))
            data = stream.unused_data
        data = b"<div>".join(texts)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


def of_markup(text):
    """Paragraphs of HTML and its kin: what lies between the borders of blocks."""
    try:
        tree = html.document_fromstring(text.encode(), parser=html.HTMLParser(encoding="utf-8"))
    except etree.ParserError:  # an empty document
        return []
    for element in list(tree.iter(*DROPPED.split())):
        if element.getparent() is not None:
            element.drop_tree()
    for element in tree.iter(*BLOCKS.split()):
        element.text = BREAK + (element.text or "")
        element.tail = BREAK + (element.tail or "")
    return [" ".join(block.split()) for block in tree.text_content().split(BREAK)]


def of_text(text):
    """Paragraphs of plain text and of Perl's POD: what lies between empty lines."""
    for _ in range(2):  # POD's italics and links, also in one another
        text = re.sub(r"\b[BCFILSXZ]<+ ?([^<>|]*)[^<>]*>+", r"\1", text)
    return [" ".join(block.split()) for block in re.split(r"\n\s*\n", text)]


def is_prose(paragraph):
    """Ten words or more, an end; nine of ten characters are letters or spaces; of the words over a
    quarter only bind the others together: code, tables and other languages have fewer of them."""
    words = re.findall(r"[a-z']+", paragraph.lower())
    if len(words) < 10 or not re.search(r"[.!?:;,][\"'”’)\]]*$", paragraph):
        return False
    others = len(re.findall(r"[^\w ]|[\d_]", paragraph))
    binding = sum(word in FUNCTION_WORDS for word in words)
    return others < 0.1 * len(paragraph) and binding > 0.28 * len(words)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="a new folder")
    parser.add_argument("--debs", type=Path, help="keep the packages there, for the next time")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        main(arguments.folder, arguments.debs or Path(temporary))
