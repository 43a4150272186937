"""Make `album_gan/fonts` from the packages that the fonts come from: `python tools/fonts.py FOLDER`, with the packages of SOURCES in FOLDER.

Needs fonttools and brotli. FOLDER holds what `npm pack NAME@VERSION` and `apt-get download NAME` bring. The result is committed; this
file says how it was made. All fonts are under the SIL Open Font License 1.1, none of them reserves a name that is used here."""
import hashlib, json, subprocess, sys, tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

from fontTools import subset
from fontTools.ttLib import TTFont

FEATURES = ("kern", "liga", "clig", "calt", "rlig", "ccmp", "mark", "mkmk", "locl", "init", "medi", "fina", "isol", "curs", "abvm", "blwm", "abvs", "blws", "pres", "psts", "akhn", "rphf", "pref", "blwf", "abvf", "half", "pstf", "vatu", "cjct", "nukt", "rkrf", "dist", "haln")
OUT = Path(__file__).parents[1]/"album_gan"/"fonts"
INTER, OSWALD, GROTESK, EMOJI = "expo-google-fonts-inter-0.4.2.tgz", "expo-google-fonts-oswald-0.4.2.tgz", "expo-google-fonts-space-grotesk-0.4.1.tgz", "fontsource-noto-emoji-5.3.2.tgz"
SOURCES = {"npm": [INTER, OSWALD, GROTESK, EMOJI],
           "debian": ["fonts-noto-core_20201225-1_all.deb", "fonts-noto-cjk_1%3a20220127+repack1-1_all.deb"]}

LATIN = [*range(0x20, 0x7f), *range(0xa0, 0x250), *range(0x2b0, 0x370), *range(0x1e00, 0x1f00), *range(0x2000, 0x206f), 0x20ac, 0x2116, 0x2117, 0x2120, 0x2122, 0x2212, 0x2215, 0x221e, 0x2260, 0xfb01, 0xfb02]
GREEK_CYRILLIC = [*range(0x370, 0x530), *range(0x1c80, 0x1c90), *range(0x1f00, 0x2000)]

def two_bytes(codec, first, second):
    "All characters that a two-byte character set has."
    found = set()
    for a in first:
        for b in second:
            try: found |= set(bytes([a, b]).decode(codec))
            except UnicodeDecodeError: pass
    return {ord(c) for c in found}

def east_asian():
    jis = {ord(c) for a in [*range(0x81, 0xa0), *range(0xe0, 0xef)] for b in range(0x40, 0xfd) for c in bytes([a, b]).decode("shift_jis", "ignore")}
    high = range(0xa1, 0xff)
    keep = lambda cs: {c for c in cs if 0x2e80 <= c < 0x9fff or 0xac00 <= c < 0xd7b0 or 0xff00 <= c < 0xfff0}
    return sorted(keep(jis) | keep(two_bytes("gb2312", high, high)) | keep(two_bytes("euc_kr", high, high)) | set(range(0x3000, 0x3100)) | set(range(0xff01, 0xffef)) | {0x2026, 0x2014, 0x2018, 0x2019, 0x201c, 0x201d, 0x25cb, 0x25cf, 0x2605, 0x2606, 0x266a, 0x266d, 0x266f})

def cut(font, unicodes=None, features=FEATURES, hinting=False):
    "A font with these characters alone, without hinting and without names that nobody reads."
    o = subset.Options(); o.hinting, o.layout_features, o.name_IDs, o.notdef_outline, o.glyph_names = hinting, list(features), [0, 1, 2, 3, 4, 5, 6, 13, 14], True, False
    o.drop_tables = subset.Options().drop_tables + ["STAT", "DSIG", "meta", "FFTM"]
    o.recalc_bounds = True
    s = subset.Subsetter(o)
    s.populate(unicodes=unicodes if unicodes is not None else font.getBestCmap())
    s.subset(font)
    return font

def main(folder):
    folder = Path(folder)
    origin = {}
    with TemporaryDirectory() as t:
        t = Path(t)
        for d in SOURCES["debian"]: subprocess.run(["dpkg-deb", "-x", folder/d, t/"deb"], check=True)
        for n in SOURCES["npm"]:
            with tarfile.open(folder/n) as tar: tar.extractall(t/n, filter="data")
        sha = {n: hashlib.sha256((folder/n).read_bytes()).hexdigest() for n in SOURCES["npm"] + SOURCES["debian"]}

        def keep(name, font, package, files, done, licence):
            font.save(OUT/name)
            names = {r.nameID: str(r) for r in font["name"].names}
            origin[name] = dict(family=names.get(1, ""), copyright=names.get(0, ""), licence=licence, package=package, package_sha256=sha[package], files=files, done=done,
                                sha256=hashlib.sha256((OUT/name).read_bytes()).hexdigest(), characters=len(font.getBestCmap()))
            print(f"{name:34} {(OUT/name).stat().st_size/1e3:8.0f} kB {len(font.getBestCmap()):6} characters")

        def npm(package, file, unicodes, name, licence):
            font = TTFont(t/package/"package"/file); font.flavor = None
            keep(name, cut(font, unicodes), package, [file], "characters that titles need kept, hinting taken out" if unicodes else "unpacked, hinting taken out", licence)

        wide = LATIN + GREEK_CYRILLIC
        npm(INTER, "800ExtraBold/Inter_800ExtraBold.ttf", wide, "Inter-ExtraBold.ttf", "OFL-Inter.txt")
        npm(INTER, "500Medium/Inter_500Medium.ttf", wide, "Inter-Medium.ttf", "OFL-Inter.txt")
        npm(OSWALD, "600SemiBold/Oswald_600SemiBold.ttf", wide, "Oswald-SemiBold.ttf", "OFL-Oswald.txt")
        npm(GROTESK, "700Bold/SpaceGrotesk_700Bold.ttf", wide, "SpaceGrotesk-Bold.ttf", "OFL-SpaceGrotesk.txt")
        npm(EMOJI, "files/noto-emoji-emoji-700-normal.woff2", None, "NotoEmoji-Bold.ttf", "OFL-NotoEmoji.txt")
        core = SOURCES["debian"][0]
        for stem, unicodes in {"NotoSerifDisplay-Bold": LATIN + GREEK_CYRILLIC, "NotoSans-Bold": LATIN + GREEK_CYRILLIC, "NotoKufiArabic-Bold": None, "NotoNaskhArabic-Bold": None,
                               "NotoSansHebrew-Bold": None, "NotoSansDevanagari-Bold": None, "NotoSansThai-Bold": None, "NotoSansArmenian-Bold": None, "NotoSansGeorgian-Bold": None,
                               "NotoSansSymbols2-Regular": [*range(0x2190, 0x2200), *range(0x2300, 0x2400), *range(0x2500, 0x27c0), *range(0x2b00, 0x2bff)]}.items():
            source = t/"deb"/"usr"/"share"/"fonts"/"truetype"/"noto"/f"{stem}.ttf"
            keep(f"{stem}.ttf", cut(TTFont(source), unicodes), core, [f"usr/share/fonts/truetype/noto/{stem}.ttf"], "characters that titles need kept, hinting taken out" if unicodes else "hinting taken out", "OFL-Noto.txt")
        cjk = t/"deb"/"usr"/"share"/"fonts"/"opentype"/"noto"/"NotoSansCJK-Bold.ttc"
        keep("NotoSansCJKjp-Bold.otf", cut(TTFont(cjk, fontNumber=0), east_asian(), ("kern", "palt", "ccmp", "mark")), SOURCES["debian"][1], ["usr/share/fonts/opentype/noto/NotoSansCJK-Bold.ttc, face 0 (JP)"],
             "the characters of JIS X 0208, GB 2312 and KS X 1001 kept, hinting taken out", "OFL-NotoCJK.txt")
        for n, file, target in ((INTER, "LICENSE_FONT", "Inter"), (OSWALD, "LICENSE_FONT", "Oswald"), (GROTESK, "LICENSE_FONT", "SpaceGrotesk"), (EMOJI, "LICENSE", "NotoEmoji")):
            (OUT/f"OFL-{target}.txt").write_text((t/n/"package"/file).read_text(encoding="utf-8"), encoding="utf-8")
        body = (OUT/"OFL-Inter.txt").read_text(encoding="utf-8"); body = body[body.index("This Font Software is licensed"):]
        for target, ours in (("Noto", lambda n: n.startswith("Noto") and n not in ("NotoEmoji-Bold.ttf", "NotoSansCJKjp-Bold.otf")), ("NotoCJK", lambda n: n == "NotoSansCJKjp-Bold.otf")):
            notices = dict.fromkeys(origin[n]["copyright"] for n in sorted(origin) if ours(n))
            (OUT/f"OFL-{target}.txt").write_text("\n".join(notices) + "\n\n" + body, encoding="utf-8")
    (OUT/"origin.json").write_text(json.dumps(origin, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{sum(f.stat().st_size for f in OUT.iterdir())/1e6:.1f} MB in all")

if __name__ == "__main__": main(sys.argv[1])
