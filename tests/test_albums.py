"""Album folders, music folders and clips: what goes in comes out, and what is broken gets a sentence."""
import errno
import json
import math
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
from hypothesis import HealthCheck, given, settings, strategies as st
from PIL import Image

from album_gan.audio.clips import Clip, as_clip, clip_batches, load_clip
from album_gan.data import core, music
from album_gan.data.core import AlbumGanError, shared_dir
from album_gan.data.folder import (COLUMNS, album_prompt, check_albums, is_album_folder, load_cover, read_albums,
                                   read_provenance, split_by_artist, write_albums)
from album_gan.data.music import folder_from_music, group_albums, judge
from album_gan.data.sound import decode, quiet_decoder, read_window, write_sound

SAID = dict(source="a test", licence="CC0-1.0")
needs_shared = pytest.mark.skipif(shared_dir() is None, reason="../shared is not here")


@pytest.fixture(autouse=True)
def own_data_folder(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("ALBUM_GAN_DATA", str(tmp_path_factory.mktemp("data")))


def table(n=2, **columns):
    base = dict(album_id=[f"a{i}" for i in range(n)], song_id=[f"s{i}" for i in range(n)], artist="A", album="B", song="C",
                genre="D", year=2000, audio="", cover="")
    return pd.DataFrame({**base, **columns})


def tone(seconds=4.0, rate=22050, pitch=330.0):
    t = np.arange(round(seconds * rate)) / rate
    return (0.3 * np.sin(2 * np.pi * pitch * t)).astype(np.float32)


# --- the album folder -------------------------------------------------------------------------------------------------

TEXT = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12),
    st.sampled_from(["1984", "÷", "AC/DC", "NA", "null", "nan", "None", "007", "1e5", "TRUE", "-", " padded ", 'a "b", c', "two\nlines",
                     "\r", "\r\n", "a\rb", "=1+1", "'", '"', ",", ";", "\ufeff", "\x1a", "\u2028", "2001-01-01"]))
IDS = st.text("abcXYZ019-_", min_size=1, max_size=64)


@st.composite
def tables(draw):
    ids = draw(st.lists(IDS, max_size=4, unique=True))
    column = lambda s: draw(st.lists(s, min_size=len(ids), max_size=len(ids)))
    extra = draw(st.dictionaries(TEXT.filter(lambda c: c and c not in COLUMNS), st.just(TEXT), max_size=2))
    return pd.DataFrame(dict(album_id=ids, song_id=ids, artist=column(TEXT), album=column(TEXT), song=column(TEXT), genre=column(TEXT),
                             year=column(st.one_of(st.none(), st.integers(1, 9999))), audio="", cover="", **{k: column(v) for k, v in extra.items()}), dtype=object)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(df=tables())
def test_round_trip_is_lossless(tmp_path, df):
    write_albums(tmp_path, df, SAID)
    back = read_albums(tmp_path)
    assert list(back.columns) == list(df.columns)
    for c in df.columns:
        if c == "year": assert [None if v is pd.NA else v for v in back.year] == df.year.tolist()
        else: assert back[c].tolist() == df[c].tolist()
    assert str(back.year.dtype) == "Int64"
    from_json = pd.DataFrame(json.loads((tmp_path/"albums.json").read_text(encoding="utf-8")), columns=df.columns, dtype=object)
    pd.testing.assert_frame_equal(check_albums(from_json), back)
    (tmp_path/"albums.json").unlink() # the csv alone says the same
    pd.testing.assert_frame_equal(read_albums(tmp_path), back)
    write_albums(tmp_path, back, SAID) # and again
    pd.testing.assert_frame_equal(read_albums(tmp_path), back)


def test_missing_values_become_empty_text():
    df = check_albums(table(3, genre=[None, float("nan"), pd.NA], year=[None, float("nan"), "1999"], album=[1984, "x", ""], album_id=list("abc")))
    assert df.genre.tolist() == ["", "", ""] and df.album.tolist() == ["1984", "x", ""]
    assert df.year.isna().tolist() == [True, True, False] and df.year[2] == 1999


@pytest.mark.parametrize("change, says", [
    (lambda d: d.drop(columns=["genre"]), "no column genre; add it"),
    (lambda d: d.drop(columns=["genre", "year"]), "no column genre, year; add them"),
    (lambda d: d.assign(album_id="../x"), "column album_id, row 1"),
    (lambda d: d.assign(album_id=["ok", "ends\n"]), "column album_id, row 2"),
    (lambda d: d.assign(song_id="s"), "song_id is taken"),
    (lambda d: d.assign(audio="/etc/passwd"), "path inside the folder"),
    (lambda d: d.assign(cover="covers/../../x.jpg"), "path inside the folder"),
    (lambda d: d.assign(cover="C:\\x.jpg"), "path inside the folder"),
    (lambda d: d.assign(year=1999.5), "whole number"),
    (lambda d: d.assign(year=10**30), "from 1 to 9999"),
    (lambda d: d.assign(year=math.inf), "cannot be used"),
    (lambda d: d.assign(album=[1.5, "x"]), "column album, row 1"),
    (lambda d: d.assign(album=[True, "x"]), "column album, row 1"),
    (lambda d: d.assign(album="a\0b"), "NUL"),
    (lambda d: d.assign(album=pd.Series(["\ud800", "x"], dtype=object)), "surrogates"),
    (lambda d: d.assign(album_id="a", album=["x", "y"]), "another row of album_id a"),
])
def test_broken_tables_are_named(change, says):
    with pytest.raises(AlbumGanError) as e: check_albums(change(table()))
    assert says in str(e.value) and "\n" not in str(e.value)


def test_files_that_disagree(tmp_path):
    write_albums(tmp_path, table(), SAID)
    csv, other = tmp_path/"albums.csv", tmp_path/"albums.json"
    text = csv.read_text(encoding="utf-8")
    for new, says in [(text.replace("2000", "2001"), "column year, row 1 (2001 and 2000)"), (text.rsplit('"a1"')[0], "1 rows and albums.json 2"),
                      (text.replace(',"cover"', ',"cover","extra"', 1).replace(',""\n', ',"","x"\n'), "same columns (extra)")]:
        csv.write_text(new, encoding="utf-8")
        with pytest.raises(AlbumGanError, match="delete albums.json") as e: read_albums(tmp_path)
        assert says in str(e.value)
    csv.write_text(text, encoding="utf-8")
    for broken in ("[", "{}", "[1]"):
        other.write_text(broken, encoding="utf-8")
        with pytest.raises(AlbumGanError, match="albums.json"): read_albums(tmp_path)


@pytest.mark.parametrize("raw, says", [
    (b"", "comma-separated"), (b"\xff\xfe\x00", "UTF-8"), (b"album_id;song_id\n1;2\n", "semicolons"), (b'a,b\n1,2\n1,2,3\n"', "comma-separated"),
    (b"album_id,song_id,artist,album,song,year,audio,cover\n", "no column genre; add it"), (b"\0\0\0", "albums.csv")])
def test_broken_csv(tmp_path, raw, says):
    (tmp_path/"albums.csv").write_bytes(raw)
    with pytest.raises(AlbumGanError, match=says): read_albums(tmp_path)


def test_a_comma_too_many_is_not_another_table(tmp_path):
    write_albums(tmp_path, table(), SAID)
    (tmp_path/"albums.json").unlink()
    file = tmp_path/"albums.csv"
    for row in ("Earth, Wind & Fire", "A,"):
        file.write_text(file.read_text(encoding="utf-8").replace('"A"', row, 1).replace('"B"', "B"), encoding="utf-8")
        with pytest.raises(AlbumGanError, match="its first row has more fields than there are columns; put quotes"): read_albums(tmp_path)


@pytest.mark.parametrize("said", ["[]", '"x"', '{"fields": []}', '{"fields": {"genre": "from me"}}', '{"licence": ["CC"]}'])
def test_a_provenance_of_another_shape_is_one_sentence(tmp_path, said):
    write_albums(tmp_path, table(), SAID)
    (tmp_path/"provenance.json").write_text(said)
    with pytest.raises(AlbumGanError, match="provenance.json does not say what it should"): read_provenance(tmp_path)


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    write_albums(tmp_path, table(), SAID)
    usual = Path.read_text
    def closed(self, *args, **kwargs):
        if self.name == "albums.json": raise PermissionError(errno.EACCES, "Permission denied")
        return usual(self, *args, **kwargs)
    monkeypatch.setattr(Path, "read_text", closed)
    with pytest.raises(AlbumGanError, match=r"albums.json cannot be read \(Permission denied\); check its permissions"): read_albums(tmp_path)


def test_a_folder_whose_name_is_no_text(tmp_path):
    (tmp_path/"m").mkdir(); write_sound(tmp_path/"m"/"a.wav", tone(), 22050)
    music = (tmp_path/"m").rename(tmp_path/os.fsdecode(b"m\xff"))
    assert len(folder_from_music(music, tmp_path/"out").table) == 1


def test_a_spreadsheet_saves_with_a_byte_order_mark(tmp_path):
    write_albums(tmp_path, table(), SAID)
    csv = tmp_path/"albums.csv"
    csv.write_bytes(b"\xef\xbb\xbf" + csv.read_bytes().replace(b"\n", b"\r\n"))
    assert len(read_albums(tmp_path)) == 2


def test_provenance_covers_every_column(tmp_path):
    write_albums(tmp_path, table(mood="blue"), {**SAID, "fields": {"cover": {"licence": "CC-BY-4.0"}, "year": "guessed"}})
    said = read_provenance(tmp_path)
    assert set(said["fields"]) == {*COLUMNS, "mood"}
    assert said["fields"]["cover"] == {"source": "a test", "licence": "CC-BY-4.0", "time": said["time"]}
    assert said["fields"]["year"]["source"] == "guessed"
    with pytest.raises(AlbumGanError, match="licence"): write_albums(tmp_path, table(), {"source": "x"})
    with pytest.raises(AlbumGanError, match="colour"): write_albums(tmp_path, table(), {**SAID, "fields": {"colour": "x"}})


def test_a_full_disk_leaves_the_old_folder(tmp_path, monkeypatch):
    write_albums(tmp_path, table(), SAID)
    before = {f.name: f.read_bytes() for f in tmp_path.iterdir()}
    def full(fd): raise OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(core.os, "fsync", full)
    with pytest.raises(AlbumGanError, match="disk is full"): write_albums(tmp_path, table(3), SAID)
    assert {f.name: f.read_bytes() for f in tmp_path.iterdir()} == before


@given(st.text(), st.one_of(st.none(), st.text(), st.just(float("nan"))))
def test_prompts_never_say_nothing(album, genre):
    prompt = album_prompt(album, genre)
    assert prompt.startswith("Create an album cover") and "  " not in prompt and "\n" not in prompt
    for nothing in ("nan", "None", "unknown", "Unknown ", "n/a", "<NA>"):
        assert "genre" not in album_prompt("x", nothing)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.text("abß ", max_size=3), st.integers(0, 9)), min_size=1, max_size=40), st.floats(0.1, 0.9), st.integers(0, 5))
def test_splits_keep_artists_apart(rows, share, seed):
    df = pd.DataFrame(rows, columns=["artist", "album_id"]).astype(str)
    split = split_by_artist(df, share, seed)
    key = df.artist.str.casefold().str.split().str.join(" ")
    assert set(split) <= {"train", "test"}
    assert (split.groupby(key[key != ""]).nunique() == 1).all()
    assert split.equals(split_by_artist(df, share, seed))
    everybody = key.where(key != "", df.album_id.map("album:{}".format)).nunique()
    assert split.nunique() == min(2, everybody)


def test_splits_are_stable_when_albums_arrive():
    df = pd.DataFrame(dict(artist=[f"artist {i}" for i in range(300)], album_id=[str(i) for i in range(300)]))
    assert split_by_artist(df).tolist()[50:] == split_by_artist(df[50:]).tolist()
    assert 0.15 < (split_by_artist(df) == "test").mean() < 0.35
    assert not split_by_artist(df).equals(split_by_artist(df, seed=1))
    with pytest.raises(AlbumGanError): split_by_artist(df, test=25)


@pytest.mark.parametrize("kind, mode", [(k, m) for k, modes in dict(
    png="1 L LA P RGB RGBA I;16", jpg="1 L RGB CMYK YCbCr", tif="1 L LA P RGB RGBA CMYK I I;16 F", gif="1 L LA P RGB RGBA",
    webp="L LA P RGB RGBA", bmp="1 L P RGB RGBA").items() for m in modes.split()])
def test_every_kind_of_picture(tmp_path, mode, kind):
    ramp = np.tile(np.linspace(0, 1, 40), (30, 1))
    if mode == "I;16": im = Image.fromarray((ramp * 65535).astype(np.uint16))
    elif mode == "I": im = Image.fromarray((ramp * 65535).astype(np.int32))
    elif mode == "F": im = Image.fromarray(ramp.astype(np.float32))
    else: im = Image.fromarray((ramp * 255).astype(np.uint8)).convert("RGB").convert(mode)
    im.save(tmp_path/f"x.{kind}")
    got = load_cover(tmp_path/f"x.{kind}", 30)
    assert (got.mode, got.size) == ("RGB", (30, 30))
    grey = np.asarray(got.convert("L")).astype(int)
    assert grey[:, :4].mean() < 80 < 170 < grey[:, -4:].mean() # dark on the left, light on the right


def test_bad_pictures(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (99, 99, 3), np.uint8)).save(tmp_path/"good.jpg")
    raw = (tmp_path/"good.jpg").read_bytes()
    for cut in (1, 20, 200, len(raw) // 2, len(raw) - 40):
        (tmp_path/"x.jpg").write_bytes(raw[:cut])
        with pytest.raises(AlbumGanError, match="x.jpg"): load_cover(tmp_path/"x.jpg", 64)
    (tmp_path/"x.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n") # nobody runs this
    with pytest.raises(AlbumGanError, match="not a picture"): load_cover(tmp_path/"x.jpg", 64)
    with pytest.raises(AlbumGanError): load_cover(tmp_path, 64)


# --- sound ------------------------------------------------------------------------------------------------------------

def test_a_picture_larger_than_any_cover_is_not_read(tmp_path):
    with open(tmp_path/"cover.jpg", "wb") as f: f.truncate(40*10**9)
    with pytest.raises(AlbumGanError, match="has 40,000 MB, more than the 200 MB allowed"): load_cover(tmp_path/"cover.jpg", 64)


def test_the_door_opens_again():
    before, err = os.fstat(2), sys.stderr
    def visit(_):
        for _ in range(50):
            with quiet_decoder(): pass
    with ThreadPoolExecutor(4) as pool: list(pool.map(visit, range(4)))
    after = os.fstat(2)
    assert (before.st_dev, before.st_ino) == (after.st_dev, after.st_ino) and sys.stderr is err


@pytest.mark.parametrize("kind", ["mp3", "ogg", "flac", "wav", "opus"])
def test_a_part_is_the_same_as_in_the_whole(tmp_path, kind):
    rate = 48000 if kind == "opus" else 44100
    x = np.stack([tone(20, rate, 220), tone(20, rate, 331)], 1)
    write_sound(tmp_path/f"x.{kind}", x, rate)
    raw, _ = sf.read(tmp_path/f"x.{kind}", dtype="float32")
    whole = raw.mean(1)
    for start in (0, 0.37, 7.7, 18):
        part, r = decode(tmp_path/f"x.{kind}", start, 1.5)
        first = round(start * rate)
        assert r == rate and np.abs(part - whole[first:first + len(part)]).max() < 1e-4 and len(part) == round(1.5 * rate)


def test_a_foreign_format_without_a_decoder(tmp_path, monkeypatch):
    import audioread
    def none(path): raise audioread.NoBackendError()
    monkeypatch.setattr(audioread, "audio_open", none)
    monkeypatch.setattr(audioread, "available_backends", lambda: [])
    (tmp_path/"x.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + os.urandom(5000))
    assert judge(tmp_path/"x.m4a")["kind"] == "no decoder" and "install ffmpeg" in judge(tmp_path/"x.m4a")["reason"]


def test_a_foreign_format_with_a_decoder(tmp_path, monkeypatch):
    import audioread
    pcm = (np.repeat(tone(30), 2) * 32767).astype("<i2").tobytes()
    class Decoder:
        samplerate, channels, duration = 22050, 2, 30.0
        def __enter__(self): return self
        def __exit__(self, *_): pass
        def __iter__(self): return (pcm[i:i + 4096] for i in range(0, len(pcm), 4096))
    monkeypatch.setattr(audioread, "audio_open", lambda path: Decoder())
    (tmp_path/"x.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(range(256)) * 20)
    c = load_clip(tmp_path/"x.m4a", seconds=10, position=1)
    assert c.start == 20 and np.abs(c.samples - tone(30)[20 * 22050:]).max() < 1e-3


@pytest.mark.parametrize("cut", [0.1, 0.3, 0.6, 0.95])
@pytest.mark.parametrize("kind", ["mp3", "ogg", "flac", "wav"])
def test_truncated_songs_are_used_as_far_as_they_go(tmp_path, kind, cut):
    rng = np.random.default_rng(0)
    write_sound(tmp_path/f"x.{kind}", tone(40) + 0.01 * rng.standard_normal(40 * 22050).astype(np.float32), 22050)
    raw = (tmp_path/f"x.{kind}").read_bytes()
    (tmp_path/f"x.{kind}").write_bytes(raw[:int(len(raw) * cut)])
    try: c = load_clip(tmp_path/f"x.{kind}")
    except AlbumGanError as e: assert f"x.{kind}" in str(e) and "\n" not in str(e) and cut < 0.2
    else: assert c.samples.shape == (25 * 22050,) and np.isfinite(c.samples).all() and c.duration > 2


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["mp3", "ogg", "flac", "wav", "m4a"]), st.binary(max_size=300), st.booleans())
def test_no_file_raises_anything_else(tmp_path, kind, junk, headed):
    magic = {"mp3": b"ID3\x04\0\0\0\0\0\0\xff\xfb\x90\0", "ogg": b"OggS\0\2", "flac": b"fLaC\0\0\0\x22", "wav": b"RIFF\xff\xff\xff\xffWAVEfmt ", "m4a": b"\0\0\0\x20ftypM4A "}
    (tmp_path/f"x.{kind}").write_bytes(magic[kind] * headed + junk)
    assert not judge(tmp_path/f"x.{kind}")["ok"]
    with pytest.raises(AlbumGanError): load_clip(tmp_path/f"x.{kind}")


def test_odd_clips(tmp_path):
    write_sound(tmp_path/"six.wav", np.repeat(tone(6)[:, None], 6, 1), 22050)
    assert np.abs(load_clip(tmp_path/"six.wav", 6).samples - tone(6)).max() < 1e-3
    sf.write(tmp_path/"old.wav", tone(12, 8000), 8000, subtype="PCM_U8")
    c = load_clip(tmp_path/"old.wav")
    assert c.padded and abs(c.duration - 12) < 0.01 and "12.0 s of music" in c.notes[0]
    x = tone(30); x[:] = np.where(np.arange(len(x)) % 1000, x, np.nan)
    sf.write(tmp_path/"nan.wav", x, 22050, subtype="FLOAT")
    assert "NaN" in load_clip(tmp_path/"nan.wav").notes[0]
    sf.write(tmp_path/"loud.wav", 9 * tone(30), 22050, subtype="FLOAT")
    assert np.abs(load_clip(tmp_path/"loud.wav").samples).max() == 1
    for quiet, says in ((np.zeros(30 * 22050), "is silent;"), (np.r_[tone(30), np.zeros(60 * 22050), tone(30)], "silent from 48 to 72 s"), (np.full(99999, 0.5), "is silent;")):
        sf.write(tmp_path/"quiet.wav", quiet, 22050)
        with pytest.raises(AlbumGanError, match=says): load_clip(tmp_path/"quiet.wav")
    assert load_clip(tmp_path/"loud.wav", seconds=1 / 3).samples.shape == (7350,)


def test_arrays_become_clips():
    x = tone(30, 44100)
    want = as_clip(x, 44100).samples
    import torch
    for same in (x[:, None], x[None], np.stack([x, x]), torch.tensor(x), (x * 2**15).astype(np.int16), (x * 2**31).astype(np.int32), x.astype(np.float64), list(x[:])):
        assert np.abs(as_clip(same, 44100).samples - want).max() < 1e-3


def test_one_bad_song_does_not_stop_the_rest(tmp_path):
    write_sound(tmp_path/"a.ogg", tone(), 22050)
    (tmp_path/"b.ogg").write_bytes(b"")
    got = list(clip_batches([tmp_path/f"{c}.ogg" for c in "abab"], batch_size=3, seconds=2))
    assert [[type(c) is Clip for c in b] for b in got] == [[True, False, True], [False]]
    assert list(clip_batches([])) == []


def test_memory_is_bounded(tmp_path):
    write_sound(tmp_path/"a.wav", tone(), 22050)
    taken = []
    def paths():
        for i in range(500): taken.append(i); yield tmp_path/"a.wav"
    batches = clip_batches(paths(), batch_size=4, seconds=1)
    next(batches)
    assert len(taken) <= 12
    batches.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("clips")]


# --- a folder of music ------------------------------------------------------------------------------------------------

def test_odd_names_and_kinds_of_files(tmp_path):
    home = tmp_path/"music"
    write_sound(home/"÷ 🎵 – 音楽"/"AC∕DC (feat. O’Neil).ogg", tone(), 22050)
    raw = (home/"÷ 🎵 – 音楽"/"AC∕DC (feat. O’Neil).ogg").read_bytes()
    with open(os.fsencode(home) + b"/caf\xe9.OGG", "wb") as f: f.write(raw)
    (home/"._resource.ogg").write_bytes(b"\0")
    (home/"folder.mp3").mkdir()
    (home/"loop").symlink_to(home, target_is_directory=True)
    (home/"gone.mp3").symlink_to(tmp_path/"nowhere.mp3")
    os.mkfifo(home/"pipe.mp3")
    (home/"notes.txt").write_text("not music", encoding="utf-8")
    r = folder_from_music(home)
    assert (r.read, r.used) == (4, 2) and dict(r.skipped).keys() == {"gone.mp3", "pipe.mp3"}
    assert sorted(r.table.song) == ["AC∕DC (feat. O’Neil)", "caf�"] and sorted(r.table.album) == ["music", "÷ 🎵 – 音楽"]
    assert all(sf.info(str(r.out/a)).frames for a in r.table.audio)
    assert "2 skipped" in str(r) and "gone.mp3" in r._repr_html_() and (r.out/"report.csv").read_text(encoding="utf-8").count("\n") == 5


def test_scanning_again_is_remembered(tmp_path, monkeypatch):
    home = tmp_path/"music"
    for i in range(3): write_sound(home/f"{i}.wav", tone(pitch=200 + i), 22050)
    first = folder_from_music(home)
    asked = []
    monkeypatch.setattr(music, "judge", lambda p: asked.append(p) or judge(p))
    second = folder_from_music(home)
    assert second.table.equals(first.table) and second.out == first.out and not asked
    write_sound(home/"new.wav", tone(), 22050)
    third = folder_from_music(home)
    assert [p.name for p in asked] == ["new.wav"] and third.used == 4 and third.out != first.out
    assert set(first.table.song_id) < set(third.table.song_id)


def test_an_explicit_folder_is_kept_in_step(tmp_path):
    home, out = tmp_path/"music", tmp_path/"music"/"albums"
    for i in range(3): write_sound(home/f"{i}.wav", tone(pitch=200 + i), 22050)
    assert folder_from_music(home, out).used == 3
    (home/"1.wav").unlink()
    r = folder_from_music(home, out)
    assert (r.read, r.used, len(list((out/"audio").iterdir()))) == (2, 2, 2) # what lies in `out` is not music of the collection
    write_albums(tmp_path/"other", table(), SAID)
    with pytest.raises(AlbumGanError, match="another folder"): folder_from_music(home, tmp_path/"other")


def test_copies_where_links_are_refused(tmp_path, monkeypatch):
    write_sound(tmp_path/"music"/"a.wav", tone(), 22050)
    def no(*a, **k): raise OSError(errno.EPERM, "not permitted")
    monkeypatch.setattr(music.os, "symlink", no)
    r = folder_from_music(tmp_path/"music")
    assert not (r.out/r.table.audio[0]).is_symlink() and (r.out/r.table.audio[0]).read_bytes() == (tmp_path/"music"/"a.wav").read_bytes()


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
    write_sound(tmp_path/"music"/"a.wav", tone(), 22050)
    def full(*_): raise OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(music.shutil, "copyfile", full)
    with pytest.raises(AlbumGanError, match="disk is full"): folder_from_music(tmp_path/"music", tmp_path/"out", link=False)
    assert not is_album_folder(tmp_path/"out") and not list((tmp_path/"out"/"audio").iterdir())


def test_unexpected_trouble_in_one_file(tmp_path, monkeypatch):
    for i in range(3): write_sound(tmp_path/"music"/f"{i}.wav", tone(), 22050)
    def odd(path, **k):
        if path.name == "1.wav": raise RuntimeError("surprise\nin two lines")
        return read_window(path, **k)
    monkeypatch.setattr(music, "read_window", odd)
    r = folder_from_music(tmp_path/"music")
    assert r.used == 2 and "surprise in two lines" in r.skipped[0][1]


def test_covers_beside_and_inside(tmp_path):
    home = tmp_path/"music"
    for d in ("one", "two", "three", "four/CD1"): write_sound(home/d/"song.flac", tone(), 22050)
    def put(path, size, kind="JPEG"):
        path.parent.mkdir(exist_ok=True, parents=True)
        Image.new("RGB", size, "red").save(path, kind)
    put(home/"one"/"Cover.JPG", (50, 40)); put(home/"one"/"folder.png", (3000, 1500), "PNG"); put(home/"one"/"back.jpg", (500, 500))
    put(home/"two"/"only.webp", (33, 33), "WEBP")
    (home/"three"/"cover.jpg").write_bytes(b"no picture"); put(home/"three"/"song.png", (20, 20), "PNG")
    put(home/"four"/"front.jpg", (64, 64))
    r = folder_from_music(home)
    size = {row.source.split("/")[0]: Image.open(r.out/row.cover).size for row in r.table.itertuples() if row.cover}
    assert size == {"one": (1024, 512), "two": (33, 33), "three": (20, 20), "four": (64, 64)}
    assert "three/cover.jpg" in dict(r.notes)


def test_album_ids_are_stable_and_safe():
    song = lambda f, **k: {**dict(file=f, album="", artist="", album_artist=""), **k}
    songs = [song("x/1.mp3", album="AC/DC: Live?", artist="AC/DC"), song("x/2.mp3", album="ac/dc: live?", artist="AC/DC"), song("y/3.mp3")]
    ids = list(group_albums(songs))
    assert ids == list(group_albums(songs)) and set(group_albums(songs[2:])) < set(ids) and all(i.isalnum() for i in ids)


@pytest.mark.parametrize("fill, says", [(lambda d: None, "no mp3"), (lambda d: (d/"a.mp3").write_bytes(b""), "1 music file looked at (1 empty"),
                                        (lambda d: (d/"a.txt").write_text("x"), "no mp3")])
def test_nothing_usable_is_one_sentence(tmp_path, fill, says):
    (tmp_path/"m").mkdir(); fill(tmp_path/"m")
    with pytest.raises(AlbumGanError) as e: folder_from_music(tmp_path/"m")
    assert says in str(e.value) and "\n" not in str(e.value)
    with pytest.raises(AlbumGanError, match="no folder"): folder_from_music(tmp_path/"nowhere")
    (tmp_path/"f").write_text("x")
    with pytest.raises(AlbumGanError, match="is a file"): folder_from_music(tmp_path/"f")


# --- the shared library -----------------------------------------------------------------------------------------------

@needs_shared
def test_the_hostile_folder(tmp_path):
    hostile = shared_dir()/"library"/"hostile"
    script = ("import sys; from album_gan.data.music import folder_from_music; r = folder_from_music(sys.argv[1], sys.argv[2]); print(r)")
    done = subprocess.run([sys.executable, "-c", script, str(hostile), str(tmp_path/"out")], capture_output=True, text=True, stdin=subprocess.DEVNULL,
                          env={**os.environ, "IN_TEST": "1", "PYTHONIOENCODING": "utf-8"})
    assert done.returncode == 0 and done.stderr == "" # nothing from inside a library
    r = folder_from_music(hostile, tmp_path/"out")
    assert str(r).splitlines()[1:] == done.stdout.splitlines()[1:]
    why = dict(r.skipped)
    assert set(why) == {"zero-byte.mp3", "truncated-in-header.mp3", "text-file.mp3", "half-second.wav", "nan-and-inf.wav", "silent-30s.ogg"}
    for f, word in {"zero-byte.mp3": "empty", "text-file.mp3": "text", "half-second.wav": "0.5 s", "nan-and-inf.wav": "2.0 s", "silent-30s.ogg": "silent", "truncated-in-header.mp3": "64 bytes"}.items():
        assert word in why[f]
    assert {"truncated.mp3", "truncated-cover/cover.jpg", "one-pixel.png"} <= set(dict(r.notes))
    assert len(r.table) == 6 and (r.table.cover == "").all()
    for a in r.table.audio: assert load_clip(r.out/a).samples.shape == (25 * 22050,)


@needs_shared
def test_the_library_against_its_own_table(tmp_path):
    library = shared_dir()/"library"
    r = folder_from_music(library, tmp_path/"out")
    want = pd.read_csv(library/"tracks.csv", dtype=str, keep_default_na=False).set_index("path")
    got = r.table.set_index("source").loc[want.index]
    assert r.read == r.used + len(r.skipped) and r.used >= len(want)
    assert (got.groupby(want.album_id).album_id.nunique() == 1).all() # one album there is one album here
    assert got.album_id.nunique() == want.album_id.nunique()
    assert (got.cover != "").groupby(got.album_id).first().sum() == 21
    tagged = ~want.tags_were_missing.str.contains("title")
    assert (got.song == want.title)[tagged].mean() > 0.95 and (got.genre.replace("", pd.NA).dropna() == want.genre[got.genre != ""]).all()
    assert not set(got.album.str.casefold()) & {"none", "non", ""}
