"""The music encoder as it ships: loads offline, says the same thing twice, and knows something about music."""
import json
import socket

import numpy as np
import pytest
import torch

from album_gan.audio.encoders import ENCODERS, TinyEncoder, encode_files, load_encoder
from album_gan.data.core import AlbumGanError, file_sha256, package_weights
from album_gan.data.synth import MusicFactors, random_factors, render_song


@pytest.fixture(scope="module")
def encoder(): return load_encoder("tiny")


@pytest.fixture(scope="module")
def fresh_songs():
    "Songs that training has not met: another range of seeds."
    rng = np.random.default_rng(2024)
    return [render_song(random_factors(rng), 700_000_000 + i, seconds=25.0) for i in range(6)]


def test_loads_without_network(monkeypatch):
    def refuse(*args, **kwargs): raise AssertionError("the network was asked")
    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert load_encoder("tiny").name == "tiny"


def test_shapes(encoder, fresh_songs):
    out = encoder.encode(torch.from_numpy(np.stack(fresh_songs[:2])))
    assert out.shape == (2, encoder.num_frames, encoder.embed_dim) and out.dtype == torch.float32
    assert 64 <= encoder.num_frames <= 160 and 128 <= encoder.embed_dim <= 256
    assert torch.isfinite(out).all() and not out.requires_grad


def test_same_answer_twice_and_in_any_batch(encoder, fresh_songs):
    batch = encoder.encode(fresh_songs[:3])
    assert torch.equal(batch, encoder.encode(fresh_songs[:3]))
    assert torch.equal(batch[1:2], encoder.encode([fresh_songs[1]]))
    assert torch.equal(batch, load_encoder("tiny").encode(fresh_songs[:3]))


def test_short_long_and_silent_clips(encoder):
    song = render_song(MusicFactors(), 1, seconds=26)
    assert encoder.encode([song, song[:22050], np.zeros(100, np.float32)]).shape[0] == 3
    with pytest.raises(AlbumGanError, match="not finite"): encoder.encode([np.full(1000, np.nan, np.float32)])


def test_different_music_differs(encoder):
    base = MusicFactors(key=0, bpm=90, brightness=0.3, energy=0.3)
    other = [MusicFactors(key=6, bpm=90, brightness=0.3, energy=0.3), MusicFactors(key=0, bpm=150, brightness=0.3, energy=0.3),
             MusicFactors(key=0, bpm=90, brightness=0.9, energy=0.3), MusicFactors(key=0, bpm=90, brightness=0.3, energy=0.9)]
    first, *rest = encoder.encode([render_song(f, 5, seconds=25) for f in (base, *other)]).mean(1)
    later = encoder.encode([render_song(base, 5, seconds=26)[22050:]])[0].mean(0)    # the same song, a second later
    assert all((first - r).norm() > 2 * (first - later).norm() for r in rest)


def test_language_model_beats_unigram(encoder, fresh_songs):
    codes = encoder.codec.encode(torch.from_numpy(np.stack(fresh_songs)))
    with torch.no_grad(): loss, unigram = encoder.lm.next_code_loss(codes), encoder.lm.unigram_loss(codes)
    assert loss.mean() < unigram.mean() - 0.3, (loss, unigram)


def test_linear_probe_hears_brightness_and_key(encoder):
    "Small on purpose (the notebook has the real table): nearest class mean of the embedding, far above chance."
    rng, songs, labels = np.random.default_rng(3), [], []
    for i in range(36):
        key, bright = i % 3 * 4, 0.15 + 0.7 * (i // 3 % 2)
        songs.append(render_song(MusicFactors(key, bool(rng.integers(2)), float(rng.uniform(80, 150)), bright, float(rng.uniform(0.2, 0.9))), 710_000_000 + i, seconds=25))
        labels.append((key, bright))
    x, labels = encoder.encode(songs).mean(1), np.array(labels)
    x = (x - x[:24].mean(0)) / x[:24].std(0)
    for column, chance in ((0, 1 / 3), (1, 1 / 2)):
        values = np.unique(labels[:, column])
        means = torch.stack([x[:24][labels[:24, column] == v].mean(0) for v in values])
        heard = values[torch.cdist(x[24:], means).argmin(1)]
        assert (heard == labels[24:, column]).mean() > chance + 0.2


def test_record_matches_weights():
    folder = package_weights("encoder")
    record = json.loads((folder / "training.json").read_text())
    for name, sha in record["sha256"].items(): assert file_sha256(folder / name) == sha, name
    assert record["next_code_nats"] < record["unigram_nats"]
    assert sum(f.stat().st_size for f in folder.rglob("*.safetensors")) <= 8e6


def test_unknown_names_and_broken_weights(tmp_path, encoder):
    with pytest.raises(AlbumGanError, match="choose one of: tiny"): load_encoder("tinny")
    assert set(ENCODERS) >= {"tiny"}
    encoder.save(tmp_path / "copy")
    assert load_encoder(str(tmp_path / "copy")).fingerprint == encoder.fingerprint
    (tmp_path / "copy" / "lm" / "diffusion_pytorch_model.safetensors").write_bytes(b"cut off")
    with pytest.raises(AlbumGanError, match="cannot be read"): TinyEncoder.load(tmp_path / "copy")


def test_a_bad_file_does_not_stop_the_others(tmp_path, encoder, fresh_songs):
    import soundfile as sf
    sf.write(tmp_path / "good.wav", fresh_songs[0], 22050)
    (tmp_path / "bad.mp3").write_bytes(b"\0" * 500)
    results = dict(encode_files(encoder, [tmp_path / "bad.mp3", tmp_path / "good.wav"]))
    assert isinstance(results[tmp_path / "bad.mp3"], AlbumGanError)
    assert results[tmp_path / "good.wav"].shape == (encoder.num_frames, encoder.embed_dim)
