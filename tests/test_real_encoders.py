"""Encoders of real size: documented shapes and rates, batches like one by one, and what they hear in real songs."""
import importlib.util
import multiprocessing
import os
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from album_gan.audio.encoders import ENCODERS, encode_files, load_encoder
from album_gan.audio.hub_encoders import ClapEncoder, EncodecEncoder, MusicgenEncoder
from album_gan.audio.jukebox import JukeboxEncoder, fetch_jukebox
from album_gan.audio.musicnn import NETS, MusicnnEncoder
from album_gan.audio.probes import album_mates, embed_library
from album_gan.data.core import AlbumGanError, shared_dir
from album_gan.data.sound import write_sound
from album_gan.data.synth import MusicFactors, render_song

torch.set_num_threads(1)  # sums in another order can choose another code of an untrained code book
needs_library = pytest.mark.skipif(shared_dir() is None, reason='there is no library of real songs beside the project')
needs_musicnn = pytest.mark.skipif(importlib.util.find_spec('musicnn') is None, reason='pip install --no-deps musicnn==0.1.0')
needs_jukebox = pytest.mark.skipif(importlib.util.find_spec('jukebox_infer') is None, reason='pip install --no-deps jukebox-infer==0.1.2')


@pytest.fixture(scope='module')
def tracks():
    return pd.read_csv(shared_dir()/'library'/'tracks.csv', keep_default_na=False)


@pytest.fixture(scope='module')
def songs(tmp_path_factory):
    """Two short songs on disk; encoders fill the rest of the clip with silence."""
    folder = tmp_path_factory.mktemp('songs')
    files = [folder/'a.ogg', folder/'b.flac']
    for i, f in enumerate(files): write_sound(f, render_song(MusicFactors(key=i, bpm=90 + 40*i), i, 26.0), 22050)
    return files


# narrow, but with every module, rate and length of the real one
MAKE = {'encodec': (lambda: EncodecEncoder.untrained(num_filters=8), (1250, 128), 32000, 25.0),
        'musicgen': (lambda: MusicgenEncoder.untrained(encodec=dict(num_filters=8), hidden_size=64, ffn_dim=64, num_attention_heads=2, num_hidden_layers=4), (1250, 64), 32000, 25.0),
        'clap': (lambda: ClapEncoder.untrained(audio=dict(depths=[1, 1, 1, 1], num_attention_heads=[1, 2, 4, 8], patch_embeds_hidden_size=16, hidden_size=128),
                                               text=dict(num_hidden_layers=1, hidden_size=32, intermediate_size=32, num_attention_heads=2)), (3, 512), 48000, 25.0),
        'jukebox': (lambda: JukeboxEncoder.untrained('5b', layers=3, prior_width=64, heads=2, width=8), (714, 64), 44100, 23.777),
        'jukebox-1b': (lambda: JukeboxEncoder.untrained('1b', layers=3, prior_width=64, heads=2, width=8), (535, 64), 44100, 17.833),
        'musicnn': (lambda: MusicnnEncoder.load(), (8, 753), 16000, 25.0),
        'musicnn-mtt-vgg': (lambda: MusicnnEncoder.load(net='MTT_vgg'), (8, 256), 16000, 25.0),
        'mel': (lambda: load_encoder('mel'), (1, 256), 22050, 25.0)}


@needs_musicnn
@needs_jukebox
@pytest.mark.parametrize('name', MAKE)
def test_shape_rate_and_batches(name, songs):
    make, shape, sample_rate, seconds = MAKE[name]
    encoder = make()
    files = songs if shared_dir() is None else [shared_dir()/'library'/'naev'/f.name for f in sorted((shared_dir()/'library'/'naev').glob('*.ogg'))[:2]] or songs
    assert (encoder.sample_rate, round(encoder.seconds, 3)) == (sample_rate, seconds) and (encoder.num_frames, encoder.embed_dim) == shape
    one_by_one = [e for _, e in encode_files(encoder, files)]
    assert [tuple(e.shape) for e in one_by_one] == [shape]*len(files) and all(e.dtype == torch.float32 and torch.isfinite(e).all() for e in one_by_one)
    encoder.batch = 2
    together = [e for _, e in encode_files(encoder, files)]
    assert max((a - b).abs().max() for a, b in zip(one_by_one, together)) < 1e-4
    assert (one_by_one[0] - one_by_one[1]).abs().mean() > 1e-3  # it does hear the music


def test_names_are_there_without_their_libraries():
    code = ("import sys; from album_gan.audio.encoders import ENCODERS; print(*ENCODERS);"
            "assert not [m for m in ('jukebox_infer', 'musicnn', 'tensorflow', 'album_gan.audio.hub_encoders', 'album_gan.audio.jukebox') if m in sys.modules]")
    out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert out.returncode == 0, out.stderr
    assert {'tiny', 'musicnn', 'encodec', 'musicgen', 'clap', 'jukebox', 'jukebox-1b', 'mel'} <= set(out.stdout.split())


@pytest.mark.parametrize('name, words', [('encodec', 'hf download facebook/encodec_32khz'), ('musicgen', '2.4 GB'), ('clap', 'tiny or musicnn, which work now'),
                                         ('musicgen:nobody/nothing@1', 'hf download nobody/nothing --revision 1')])
def test_offline_says_what_to_fetch(name, words, monkeypatch, tmp_path):
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path))
    with pytest.raises(AlbumGanError, match=re.escape(words)): load_encoder(name, local_files_only=True)


@needs_jukebox
def test_jukebox_says_what_to_fetch(monkeypatch, tmp_path):
    monkeypatch.setenv('ALBUM_GAN_DATA', str(tmp_path))
    with pytest.raises(AlbumGanError, match=r"3\.7 GB.*non-commercial.*fetch_jukebox\('1b'\)"): load_encoder('jukebox-1b')
    def refuse(*args, **kwargs): raise OSError('no route')
    monkeypatch.setattr(torch.hub, 'download_url_to_file', refuse)
    with pytest.raises(AlbumGanError, match='could not be fetched'): fetch_jukebox('1b')


def test_missing_packages_are_named(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name, *a: None if name in ('musicnn', 'jukebox_infer') else find(name, *a))
    with pytest.raises(AlbumGanError, match=r'pip install --no-deps musicnn==0\.1\.0'): load_encoder('musicnn')
    with pytest.raises(AlbumGanError, match=r'album_gan\[jukebox\]'): load_encoder('jukebox')


@needs_musicnn
def test_musicnn_names_and_folder(tmp_path, songs):
    for name, net in zip(('musicnn', 'musicnn-mtt', 'musicnn-msd-vgg', 'musicnn-mtt-vgg'), NETS):
        encoder = load_encoder(name)
        assert (encoder.name, encoder.which, len(encoder.tag_names)) == (name, net, 50)
    assert len({load_encoder(n).fingerprint for n in ('musicnn', 'musicnn-mtt', 'musicnn-msd-vgg', 'musicnn-mtt-vgg')}) == 4
    encoder.save(tmp_path)
    assert load_encoder(str(tmp_path)).fingerprint == load_encoder(f'musicnn:{tmp_path}').fingerprint == encoder.fingerprint


@needs_musicnn
@needs_library
def test_musicnn_calls_music_by_its_names(tracks):
    """Never trained on these; tags of the right kind come out on top."""
    encoder = load_encoder('musicnn')
    from album_gan.audio.clips import load_clip
    tags = lambda pattern: encoder.tags([load_clip(shared_dir()/'library'/p, encoder.seconds, sample_rate=16000).samples for p in tracks.path[tracks.genre.str.contains(pattern)][:2]]).mean(0)
    metal, classical = tags('Death Metal'), tags('Romantic Classical')
    p = lambda probabilities, *names: max(float(probabilities[encoder.tag_names.index(n)]) for n in names)
    assert p(metal, 'metal', 'heavy metal', 'rock', 'punk') > 0.3 > p(metal, 'ambient', 'jazz')
    assert p(classical, 'instrumental', 'ambient', 'beautiful', 'chillout') > p(classical, 'metal', 'rock', 'punk')


@needs_musicnn
@needs_library
def test_album_mates_are_near(tracks):
    """On every third song of the library; all of them: the slow test below."""
    some = tracks[tracks.album_id.map(tracks.album_id.value_counts()) >= 8]
    embeddings, kept, _ = embed_library(load_encoder('musicnn'), [shared_dir()/'library'/p for p in some.path[::3]])
    found = album_mates(embeddings, some.album_id.to_numpy()[::3][kept])
    assert found['score'] > 2*found['chance'], found


@needs_musicnn
@needs_library
@pytest.mark.slow
@pytest.mark.skipif('slow' not in os.environ.get('FLAGS', ''), reason='FLAGS=slow: two minutes')
def test_album_mates_are_near_in_the_whole_library(tracks):
    embeddings, kept, left = embed_library(load_encoder('musicnn'), [shared_dir()/'library'/p for p in tracks.path])
    assert not left
    found = album_mates(embeddings, tracks.album_id.to_numpy()[kept])
    assert found['n'] == 117 and found['score'] >= 4*found['chance'], found


def _part(args):
    files, share = args
    torch.set_num_threads(1)
    return [(p.name, e.numpy()) for p, e in encode_files(load_encoder('mel'), files, share=share)]


def test_two_processes_share_the_songs(songs):
    files = list(songs) + list(songs)[:1]
    with multiprocessing.get_context('spawn').Pool(1) as pool:
        other = pool.apply_async(_part, [(files, (1, 2))])
        halves, alone = [_part((files, (0, 2))), other.get(200)], _part((files, (0, 1)))
    assert [len(h) for h in halves] == [2, 1]
    for h, part in zip(halves, (alone[::2], alone[1::2])):
        for (name, e), (other, f) in zip(h, part): assert name == other and np.array_equal(e, f)


def test_memory_is_flat(songs):
    """A generator, not a list: the encoder is never more than two batches ahead."""
    class Counting(type(load_encoder('mel'))):
        seen = 0
        def embed_clip(self, samples):
            Counting.seen += len(samples)
            return super().embed_clip(samples)
    stream = encode_files(Counting(), list(songs)*50, batch_size=4)
    next(stream)
    assert Counting.seen <= 4
    stream.close()


@needs_musicnn
@pytest.mark.slow
@pytest.mark.skipif('slow' not in os.environ.get('FLAGS', ''), reason='FLAGS=slow: about ten minutes')
def test_covers_follow_what_musicnn_hears(tmp_path, monkeypatch):
    """Trained on the synthetic demo world with musicnn as its ears, the gain of two factors over shuffled music is above 0 with its interval."""
    from album_gan.experiments.runs import Painting, run_experiment
    from album_gan.experiments.training import TrainConfig
    monkeypatch.setenv('ALBUM_GAN_DATA', str(tmp_path/'data'))
    done = run_experiment('demo-400', TrainConfig.make(encoder='musicnn', max_steps=800), Painting(num_inference_steps=15, n_eval=100), tmp_path/'results', 'musicnn')
    factors = done.metrics['factors']
    print({n: (round(f['true'], 3), round(f['shuffled'], 3), f['gain_ci']) for n, f in factors.items()})
    assert sum(f['gain_ci'][0] > 0 for f in factors.values()) >= 2, factors
