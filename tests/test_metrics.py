"""The numbers that judge covers: against independent implementations, on known answers, and on anything hypothesis thinks of."""
import json
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings, strategies as st
from scipy import linalg
from torch import nn

from album_gan.data.core import AlbumGanError
from album_gan.experiments.metrics import (EFFICIENTNET_LITE0_SHA256, METRIC_KEYS, CoverFeatures, Seen, _kernel_sums, as_pictures, cover_rank, derange,
                                           evaluate_pictures, factor_agreement, factor_chance, factor_correlation, factor_errors, fid_floor, fid_kid,
                                           kid_difference, look_at, mse, paired_bootstrap, summarise)

quick = settings(max_examples=60, deadline=None)


class Eyes(nn.Module):
    "A stand-in for the packaged network: average colours of a 4 x 4 grid."
    num_features, name = 48, "average colours of a 4 x 4 grid"

    def forward(self, x): return nn.functional.adaptive_avg_pool2d(x.float()/255, 4).flatten(1)


def crowd(n, seed=0, f=24): return np.random.default_rng(seed).standard_normal((n, f)) @ np.diag(np.linspace(.2, 2, f))


# --- FID and KID -------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("n, f", [(200, 24), (20, 64)])  # more pictures than features, and fewer
def test_fid_equals_scipy(n, f):
    a, b = crowd(n, 1, f), crowd(n, 2, f) + .3
    root = linalg.sqrtm(np.cov(a.T) @ np.cov(b.T)).real
    expected = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(np.cov(a.T)) + np.trace(np.cov(b.T)) - 2*np.trace(root)
    assert fid_kid(a, b)["fid"] == pytest.approx(expected, rel=1e-4)


def test_kid_equals_a_double_loop():
    a, b = crowd(24, 1, 8), crowd(24, 2, 8) + .5
    kernel = lambda x, y: (x @ y/8 + 1)**3

    def mmd(x, y):
        n, m, total = len(x), len(y), 0.
        for i in range(n):
            for j in range(n): total += (i != j)*kernel(x[i], x[j])/(n*(n - 1))
            for j in range(m): total -= 2*kernel(x[i], y[j])/(n*m)
        for i in range(m):
            for j in range(m): total += (i != j)*kernel(y[i], y[j])/(m*(m - 1))
        return total
    artists = np.arange(24)//3
    result = fid_kid(a, b, artists)
    assert result["kid"] == pytest.approx(mmd(a, b), rel=1e-4)
    without = [mmd(a[artists != g], b[artists != g]) for g in range(8)]
    assert result["kid_without"] == pytest.approx(without, rel=1e-4)
    assert result["kid_se"] == pytest.approx(np.sqrt(7/8*sum((w - np.mean(without))**2 for w in without)), rel=1e-4)
    alone = fid_kid(a, b)["kid_without"] # every picture of either side by itself
    assert len(alone) == 48 and alone[3] == pytest.approx(mmd(np.delete(a, 3, 0), b), rel=1e-4)


def test_kernel_sums_are_the_same_in_blocks():
    "A block of the kernel at a time, as memory needs it, gives what all of it at once gives."
    a, b = (torch.as_tensor(crowd(50, s, 8)) for s in (1, 2))
    groups = torch.arange(50) % 7
    for x, y in ((a, a), (a, b)):
        for whole, blocks in zip(_kernel_sums(x, y, groups, groups, 7), _kernel_sums(x, y, groups, groups, 7, block=16)): torch.testing.assert_close(whole, blocks)


def test_identical_sets_are_near_zero_and_noise_is_monotone():
    a = crowd(200); floor, _ = fid_floor(a, crowd(200, 9))
    assert abs(fid_kid(a, a)["fid"]) < 1e-3*floor
    assert abs(fid_kid(a, crowd(200, 5))["kid"]) < 3*fid_kid(a, crowd(200, 5))["kid_se"]
    rng = np.random.default_rng(0)
    results = [fid_kid(a, crowd(200, 5) + s*rng.standard_normal(a.shape)) for s in (0, .5, 1, 2)]
    for key in ("fid", "kid"):
        values = [r[key] for r in results]
        assert values == sorted(values) and values[-1] > values[0]


def test_kid_error_is_honest():
    "The stated standard error is that of repeating the experiment, within a third."
    results = [fid_kid(crowd(100, 2*s, 8), crowd(100, 2*s + 1, 8) + .4) for s in range(60)]
    assert .75 < np.mean([r["kid_se"] for r in results])/np.std([r["kid"] for r in results]) < 1.33


@pytest.mark.parametrize("painted_in_own_style", [True, False])
def test_kid_error_knows_that_albums_of_an_artist_are_alike(painted_in_own_style):
    "Five albums of each of twenty artists who have a style of their own: the error over artists is honest, that over single pictures is not."
    def world(seed):
        style, other = (np.repeat(crowd(20, s, 8), 5, 0) for s in (seed, seed + 5000))
        return style + .2*crowd(100, seed + 1000, 8), (style if painted_in_own_style else other) + .2*crowd(100, seed + 2000, 8) + .4
    by_artist, by_picture = ([fid_kid(*world(s), groups) for s in range(60)] for groups in (np.arange(100)//5, None))
    spread = np.std([r["kid"] for r in by_artist])
    assert .7 < np.mean([r["kid_se"] for r in by_artist])/spread < 1.4 and not .7 < np.mean([r["kid_se"] for r in by_picture])/spread < 1.4


def test_error_of_a_difference_is_honest():
    "Two models on the same albums: the interval covers the true difference about as often as it says."
    covered = []
    for s in range(60):
        real = crowd(100, 3*s, 8); one, two = real + .3*crowd(100, 3*s + 1, 8) + .4, real + .3*crowd(100, 3*s + 2, 8) + .4 # equally bad
        _, low, high = kid_difference(fid_kid(real, one, np.arange(100)//2), fid_kid(real, two, np.arange(100)//2))
        covered.append(low <= 0 <= high)
    assert .86 < np.mean(covered) <= 1


def test_kid_difference_of_a_worse_model():
    real, good, bad = crowd(120), crowd(120, 1), crowd(120, 1) + .5
    mean, low, high = kid_difference(fid_kid(real, bad), fid_kid(real, good))
    assert 0 < low < mean < high
    assert np.isnan(kid_difference(fid_kid(real, bad), fid_kid(real[:60], good))).all()


def test_random_state_and_warnings_are_left_alone():
    torch.manual_seed(7); before = torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        a = fid_kid(crowd(40), crowd(40, 1))
    assert torch.equal(before, torch.get_rng_state())
    assert a["kid"] == fid_kid(crowd(40), crowd(40, 1))["kid"]


@pytest.mark.parametrize("n, fid, kid", [(0, False, False), (1, False, False), (2, True, False), (3, True, False), (4, True, True)])
def test_few_pictures(n, fid, kid):
    r = fid_kid(crowd(n), crowd(n, 1))
    assert (r["fid"] is not None, r["kid"] is not None, bool(r["reason"])) == (fid, kid, not kid)


def test_floor_says_what_it_is():
    value, how = fid_floor(crowd(30), crowd(80, 1))
    assert value > 0 and "30 real covers of the evaluation and 30 other" in how
    value, how = fid_floor(crowd(30), crowd(10, 1))
    assert value > 0 and "20 in each" in how and "lower" in how
    assert fid_floor(crowd(3))[0] is None


# --- pictures ----------------------------------------------------------------------------------------------------------------

def test_the_published_range_mistake_cannot_happen():
    x = np.random.default_rng(0).random((3, 16, 16, 3), dtype=np.float32)
    assert mse(x, x) == 0 and mse(np.zeros_like(x), np.ones_like(x)) == 1
    assert mse(x, 1 - x) == pytest.approx(np.square(2*x - 1).mean(), rel=1e-3)
    with pytest.raises(AlbumGanError, match="0 … 1"): mse(2*x - 1, x)
    with pytest.raises(AlbumGanError, match="agree in number and size"): mse(x[:2], x)
    with pytest.raises(AlbumGanError, match="one size"): as_pictures([x[0], x[0, :8]])


def test_packaged_features(tmp_path):
    eyes = CoverFeatures(resolution=64)
    assert eyes.sha256 == EFFICIENTNET_LITE0_SHA256 and "1280-d, ImageNet, 64 px" in eyes.name
    x = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert eyes(x).shape == (3, 1280) and torch.allclose(eyes(x), eyes(x/255.), atol=1e-4) and not eyes(x).requires_grad
    assert not eyes.train().training
    torch.save({k: v + 0 for k, v in eyes.net.state_dict().items()}, other := tmp_path/"other.pth")
    with pytest.warns(UserWarning, match="differ from the known ones"): assert "ImageNet" not in CoverFeatures(weights=str(other)).name


# --- factors -----------------------------------------------------------------------------------------------------------------

turns = st.floats(-3, 3, allow_nan=False)


@quick
@given(st.lists(st.tuples(turns, turns), min_size=1, max_size=20), st.integers(-3, 3))
def test_circular_distance(pairs, whole):
    a, b = np.array(pairs).T
    error = lambda x, y: factor_errors(pd.DataFrame({"hue": x}), pd.DataFrame({"hue": y}), {"hue"}).hue.to_numpy()
    d = error(a, b)
    assert (d >= 0).all() and (d <= .5).all()
    assert np.allclose(d, error(b, a), atol=1e-9) and np.allclose(d, error(a + whole, b), atol=1e-9) and np.allclose(error(a, a), 0)
    assert np.allclose(d, np.abs(np.angle(np.exp(2j*np.pi*(a - b))))/(2*np.pi), atol=1e-7)


def test_factors_that_cannot_be_measured_or_are_not_known():
    true = pd.DataFrame({"hue": [0., .5, .25, np.nan], "size": [0., 1, 0, 1]}, index=[5, 6, 7, 8])
    errors = factor_errors(pd.DataFrame({"hue": [np.nan, .5, .5, .1], "size": [0., 1, 0, 1]}), true, {"hue"})
    chance = factor_chance(true, {"hue"})
    assert errors.hue.iloc[0] == chance.hue and np.isnan(errors.hue.iloc[3]) and list(errors.index) == [5, 6, 7, 8]
    assert factor_agreement(errors, chance) == pytest.approx([.5, 1, (1 + 1 - .25/chance.hue)/2, 1])
    with pytest.raises(AlbumGanError, match="3 measured pictures but 4 rows"): factor_errors(true[:3], true)


def test_agreement_is_one_for_the_truth_and_zero_for_strangers():
    rng = np.random.default_rng(0); true = pd.DataFrame({"hue": rng.random(3000), "size": rng.random(3000)})
    chance, agree = factor_chance(true, {"hue"}), lambda t: factor_agreement(factor_errors(t, true, {"hue"}), factor_chance(true, {"hue"}))
    assert chance.hue == pytest.approx(.25, abs=.01) and chance["size"] == pytest.approx(1/3, abs=.02)
    assert agree(true).mean() == 1 and agree(true.sample(frac=1, random_state=0, ignore_index=True)).mean() == pytest.approx(0, abs=.04)


@pytest.mark.parametrize("shift", [0, .3])
def test_circular_correlation_does_not_see_where_zero_is(shift):
    rng = np.random.default_rng(0); a = rng.random(500); b = a + .05*rng.standard_normal(500)
    assert factor_correlation(b + shift, a, True) > .8 and abs(factor_correlation(rng.random(500), a, True)) < .1
    assert np.isnan(factor_correlation([1, 1, 1], [0, 1, 2]))


# --- ranking -----------------------------------------------------------------------------------------------------------------

def test_rank_is_one_for_the_true_cover_and_half_for_strangers():
    f = crowd(300); own = cover_rank(f, f, np.arange(300))
    assert (own == 1).all().all()
    other = cover_rank(crowd(300, 1), f, np.arange(300))
    assert other["rank"].mean() == pytest.approx(.5, abs=.06) and other["r@10"].mean() == pytest.approx(10/300, abs=.03)
    few = cover_rank(crowd(300, 1), f, np.arange(300), k=9)
    assert few["r@1"].mean() == pytest.approx(.1, abs=.04) and (few["r@10"] == 1).all() and (few["rank"] == other["rank"]).all()
    assert (cover_rank(np.ones_like(f), f, np.arange(300))["rank"] == .5).all()


def test_rank_equals_a_loop_and_never_counts_the_own_album():
    rng = np.random.default_rng(0); album = rng.integers(0, 12, 30); first = {a: np.flatnonzero(album == a)[0] for a in np.unique(album)}
    cover = crowd(30, 1)[[first[a] for a in album]]; made = cover + 1.5*rng.standard_normal(cover.shape)
    candidates = np.array([cover[i] for i in first.values()])
    for i, r in enumerate(cover_rank(made, cover, album)["rank"]):
        cos = lambda c: np.dot(made[i] - made.mean(0), c - candidates.mean(0))/np.linalg.norm(made[i] - made.mean(0))/np.linalg.norm(c - candidates.mean(0))
        others = [cos(cover[first[a]]) for a in first if a != album[i]]
        assert r == pytest.approx(np.mean([o < cos(cover[i]) for o in others]))
    assert np.isnan(cover_rank(made, cover, np.zeros(30))).all().all()


# --- intervals and exchanges --------------------------------------------------------------------------------------------------

def test_bootstrap_covers_and_clusters_widen_it():
    rng, hits, widths = np.random.default_rng(0), [], []
    for s in range(200):
        artist = np.repeat(np.arange(30), 4); diff = .2 + rng.standard_normal(30)[artist]*.4 + rng.standard_normal(120)*.2
        i = paired_bootstrap(diff, np.zeros(120), artist, n=400, seed=s); hits.append(i.low <= .2 <= i.high)
        alone = paired_bootstrap(diff, 0, np.arange(120), n=400, seed=s); widths.append((i.high - i.low)/(alone.high - alone.low))
    assert .88 <= np.mean(hits) <= .99 and np.mean(widths) > 1.5


def test_bootstrap_refuses_one_artist_and_skips_missing_values():
    one = paired_bootstrap([1., 2], [0., 0], ["x", "x"])
    assert one.mean == 1.5 and np.isnan(one.low) and np.isnan(one.high) and "at least 2 artists" in one.reason
    gap = paired_bootstrap([1., np.nan, 1], [0., 0, 0], ["x", "y", "z"])
    assert (gap.rows, gap.clusters, gap.low, gap.high) == (2, 2, 1, 1)
    assert paired_bootstrap([], [], []).reason


@quick
@given(st.lists(st.integers(0, 8), min_size=1, max_size=60), st.integers(0, 5))
def test_nobody_gets_music_of_their_own_artist(artists, seed):
    if len(set(artists)) == 1:
        with pytest.raises(AlbumGanError, match="by one"): derange(artists, seed)
        return
    result, artists = derange(artists, seed), np.array(artists)
    assert result.shape == artists.shape and (artists[result] != artists).all()
    if 2*np.bincount(artists).max() <= len(artists): assert sorted(result) == list(range(len(artists)))
    assert (result == derange(artists, seed)).all()


# --- one run -----------------------------------------------------------------------------------------------------------------

def run(n=40, seed=0, songs=1):
    "Covers whose mean is the music's and whose pattern is the album's; a model that paints them from the music it gets, one grey picture without music."
    rng = np.random.default_rng(seed); level = .3 + .4*rng.random(n); album = np.arange(n)//songs; level = level[album*songs]
    pattern = rng.uniform(-.3, .3, (n, 4, 4, 3))[album*songs]; pattern -= pattern.mean((1, 2, 3), keepdims=True)
    paint = lambda rows: np.clip(np.kron(level[rows, None, None, None] + pattern[rows], np.ones((1, 4, 4, 1))), 0, 1)
    rows = pd.DataFrame({"album_id": [f"a{i}" for i in album], "artist": [f"artist {i//2}" for i in album], "genre": ""}, index=np.arange(n) + 100)
    other = derange(rows.artist)
    everyone = np.arange(n)
    return dict(arms={"true": paint(everyone), "shuffled": paint(other), "off": np.full((n, 16, 16, 3), .5)}, covers=paint(everyone), rows=rows, extractor=Eyes(),
                measure=lambda p, g: pd.DataFrame({"lightness": p.mean((1, 2, 3))}), true_factors=pd.DataFrame({"lightness": level}, index=rows.index))


def test_metrics_of_a_run():
    m = evaluate_pictures(**run(), spare_covers=run(seed=1)["covers"])
    promised = {"mse", "fid", "fid_floor", "kid", "kid_se", "n", "features", "music_true", "music_shuffled", "music_off", "music_gain_ci"}
    assert tuple(m) == METRIC_KEYS and set(m) == promised | {"factors", "ranking", "prompt_only", "notes"}
    assert json.loads(json.dumps(m, allow_nan=False)) == m
    assert set(m["factors"]["lightness"]) >= {"true", "shuffled", "off", "gain_ci"} and set(m["prompt_only"]) >= {"mse", "fid", "kid", "kid_se"}
    assert m["n"] == 40 and m["features"] == Eyes.name and m["mse"] == 0 and m["fid"] < m["fid_floor"] and m["fid"] < m["prompt_only"]["fid"]
    assert m["music_true"] > .95 and abs(m["music_shuffled"]) < .3 and 0 < m["music_gain_ci"][0] < m["music_gain_ci"][1]
    assert m["prompt_only"]["kid_worse"] < 0 and "1 - error / chance" in m["notes"]["music"]
    again = evaluate_pictures(**run(), spare_covers=run(seed=1)["covers"])
    assert again == m


def test_without_factors_music_is_ranked():
    world = run(); world["true_factors"] = None
    m = evaluate_pictures(**world)
    assert m["factors"] == {} and "percentile rank" in m["notes"]["music"] and m["music_true"] > .9 and m["music_off"] == .5


def test_a_model_without_music_gains_nothing():
    world = run(); world["arms"] = dict.fromkeys(world["arms"], world["arms"]["off"])
    m = evaluate_pictures(**world)
    assert m["music_gain_ci"] == [0, 0] and m["music_true"] == m["music_shuffled"] == m["music_off"] and m["prompt_only"]["kid_worse"] == 0


def test_several_songs_of_an_album_are_one_cover():
    m = evaluate_pictures(**run(songs=2))
    assert m["n"] == 20 and "20 albums" in m["notes"]["n"] and m["ranking"]["distractors"] == 19


@pytest.mark.parametrize("n", [1, 2, 3])
def test_next_to_nothing_to_judge(n):
    world = run(8); world = {k: v for k, v in world.items()} | dict(arms={a: p[:n] for a, p in world["arms"].items()}, covers=world["covers"][:n],
                                                                    rows=world["rows"][:n], true_factors=world["true_factors"][:n])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        m = evaluate_pictures(**world)
    json.dumps(m, allow_nan=False)
    assert m["kid"] is None and m["notes"]["kid"] and (m["fid"] is None) == (n < 2)
    if n <= 2: assert m["music_gain_ci"] == [None, None] and m["notes"]["music_gain_ci"]


def test_wrong_input_is_one_sentence():
    world = run()
    with pytest.raises(AlbumGanError, match="arm shuffled, off"): evaluate_pictures(**world | {"arms": {"true": world["arms"]["true"]}})
    with pytest.raises(AlbumGanError, match="agree in number"): evaluate_pictures(**world | {"covers": world["covers"][:5]})
    seen = look_at(world["covers"], world["covers"], Eyes())
    with pytest.raises(AlbumGanError, match="40 rows but"): summarise({a: Seen(seen.features[:5], seen.squared[:5]) for a in world["arms"]}, seen, world["rows"], "x")
