"""Conditioners that cheat are caught, each by the metric that is meant for it."""
import numpy as np
import pytest

from album_gan.experiments import controls
from album_gan.experiments.controls import CONTROLS, MusicJudge, album_values, gains, look_at_arm, set_values
from album_gan.experiments.metrics import features_of
from album_gan.experiments.prepare import evaluation
from drawn_world import DrawnWorld, Eyes, deaf, honest, memoriser, text_copier


@pytest.fixture(scope='module')
def measured():
    "The four painters, measured as a model is: name -> (values per album, numbers of the set)."
    world, patch = DrawnWorld(), pytest.MonkeyPatch()
    patch.setattr(controls, 'sound_table', lambda prepared: prepared.sounds())
    rows, judge, eyes = world.pick('test'), MusicJudge.taught_by(world), Eyes()
    train_features = features_of(world.covers(world.pick('train')), eyes)
    out = {}
    real = look_at_arm(None, 'real', world, rows, eyes, judge=judge)
    for make in (honest, deaf, memoriser, text_copier):
        arms = {a: look_at_arm(make(world), a, world, rows, eyes, judge=judge) for a in CONTROLS} | {'real': real}
        out[make.__name__] = album_values(arms, world, rows), set_values(arms['true'], real, train_features)
    yield out
    patch.undo()


def own(values, column): return values[values.arm == 'true'][column].mean()


def test_honest_is_let_through(measured):
    values, numbers = measured['honest']
    for control in list(CONTROLS)[1:]: assert gains(values, 'agreement', control).low > 0, control
    assert gains(values, 'judge').low > 0 and own(values, 'judge_r@10') > .5
    assert own(values, 'motif') > .9 and numbers['copied'] < .75  # half is what independent pictures of the same kind have


def test_deaf_is_caught_by_the_shuffle(measured):
    values, good = measured['deaf'][0], measured['honest'][0]
    assert gains(values, 'agreement').low <= 0 and gains(values, 'judge').low <= 0
    assert gains(values, 'agreement').high < gains(good, 'agreement').low
    assert own(values, 'motif') > .9  # its pictures are fine: only the shuffle tells


def test_memoriser_is_caught_by_its_copies(measured):
    values, numbers = measured['memoriser']
    assert numbers['copied'] == 1 > measured['honest'][1]['copied'] + .3
    assert own(values, 'motif') < own(measured['honest'][0], 'motif') - .3  # and by the text, which it forgets
    assert gains(values, 'agreement').low > 0  # the music alone would have let it through


def test_copier_of_the_text_is_caught_by_the_music(measured):
    values, good = measured['text_copier'][0], measured['honest'][0]
    assert own(values, 'motif') > .9  # perfect by the text
    assert gains(values, 'agreement').mean == 0 and gains(values, 'agreement', 'genre').mean == 0
    assert own(values, 'agreement') < own(good, 'agreement') - .5 and own(values, 'judge_rank') < own(good, 'judge_rank') - .2


def test_true_covers_are_the_ceiling(measured):
    values = measured['honest'][0]
    assert values[values.arm == 'real'].agreement.mean() >= own(values, 'agreement') - .05
    assert (values[values.arm == 'real'].mse == 0).all()


def test_the_test_split_is_shut_outside_of_an_evaluation():
    from album_gan.data.core import AlbumGanError
    world = DrawnWorld(12)
    held = world.pick('test')
    for read in (world.batch, world.factors, world.covers):
        with pytest.raises(AlbumGanError, match='belong to the test split'): read(held)
        with evaluation(): read(held)
        with pytest.raises(AlbumGanError, match='belong to the test split'): read(np.append(world.pick('train')[:1], held[:1]))
        read(world.pick('train'))
