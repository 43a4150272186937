"""The promises of `album_gan.models`: music switched off is prompt-only to the last bit, and only the conditioner ever changes."""
import copy
import json
import logging
import subprocess
import sys

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from album_gan.data.core import AlbumGanError
from album_gan.models.backbone import (SCHEDULERS, Backbone, build_tokenizer, decode_latents, encode_covers, encode_prompts, load_backbone,
                                       make_scheduler, new_tiny_backbone, quiet, save_backbone)
from album_gan.models.conditioner import MusicAttention, MusicConditioner
from album_gan.models.fusion import FUSIONS
from album_gan.models.pipeline import AlbumCoverPipeline

D, T = 24, 40
PROMPTS = ['Create an album cover for the album Glass Harbour. The genre is jazz.', 'Create an album cover for the album ÷.']
HEARING = [f for f in FUSIONS if f != 'none']


def small_backbone(**kwargs):
    tokenizer = build_tokenizer(PROMPTS * 2, vocab_size=560)
    return new_tiny_backbone(tokenizer, channels=(32, 64), vae_channels=(16, 16, 32, 32), **kwargs).freeze()


@pytest.fixture(scope='module')
def backbone():
    """The backbone that ships with the package; one with random weights where it has not been trained yet."""
    try: return load_backbone()
    except AlbumGanError: return small_backbone()


@pytest.fixture
def songs():
    return torch.randn(2, T, D, generator=torch.Generator().manual_seed(1))


def conditioner_for(backbone, fusion, trained=False, seed=0, **kwargs):
    torch.manual_seed(seed)
    c = MusicConditioner.for_unet(backbone.unet, fusion, embed_dim=D, **kwargs)
    if trained:  # every weight somewhere else than at its start
        with torch.no_grad():
            for p in c.parameters(): p.add_(torch.randn_like(p) * 0.2)
    return c.eval()


def covers(backbone, conditioner, scheduler='ddim', prompt=PROMPTS, steps=3, **kwargs):
    pipe = AlbumCoverPipeline.from_backbone(backbone, conditioner, scheduler=scheduler)
    pipe.set_progress_bar_config(disable=True)
    kwargs = dict(generator=torch.Generator().manual_seed(0), output_type='pt', num_inference_steps=steps) | kwargs
    return pipe(prompt, **kwargs).images


# -- bit exactness ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('scheduler', SCHEDULERS)
@pytest.mark.parametrize('fusion', FUSIONS)
def test_untrained_or_switched_off_is_prompt_only(backbone, songs, fusion, scheduler):
    untrained, trained = (conditioner_for(backbone, fusion, t) for t in (False, True))
    MusicConditioner.remove(backbone.unet)
    for w in dict(guidance_text=3.0, steps=2, output_type='latent'), dict(guidance_text=1.0, steps=2, output_type='latent'):
        plain = covers(backbone, None, scheduler, **w)
        assert plain.std() > 0 and torch.isfinite(plain).all()
        for w_music in (0.0, 1.0, 2.0, 3.0):  # with 1 or 3 one of the calls is left out
            assert torch.equal(covers(backbone, untrained, scheduler, audio=songs, guidance_music=w_music, **w), plain)
        assert torch.equal(covers(backbone, trained, scheduler, audio=songs, guidance_music=0, **w), plain)
        assert torch.equal(covers(backbone, trained, scheduler, audio=None, guidance_music=2.0, **w), plain)
        assert torch.equal(covers(backbone, trained, scheduler, audio=[None, None], guidance_music=2.0, **w), plain)
        heard = covers(backbone, trained, scheduler, audio=songs, guidance_music=2.0, **w)
        assert torch.equal(heard, plain) == (fusion == 'none')


@pytest.mark.parametrize('fusion', HEARING)
def test_one_song_of_a_batch_switched_off(backbone, songs, fusion):
    c = conditioner_for(backbone, fusion, trained=True)
    both, first, none = (covers(backbone, c, audio=a, guidance_music=2.0) for a in (songs, [songs[0], None], None))
    assert torch.equal(first[0], both[0]) and torch.equal(first[1], none[1]) and not torch.equal(both[1], none[1])


@pytest.mark.parametrize('fusion', ['concat', 'cross'])
def test_replacing_as_published_is_not_prompt_only(backbone, songs, fusion):
    c = conditioner_for(backbone, fusion, residual=False)
    plain = covers(backbone, None)
    assert not torch.equal(covers(backbone, c, audio=songs), plain)
    assert torch.equal(covers(backbone, c, audio=songs, guidance_music=0), plain)


def test_exact_in_bfloat16(songs):
    b = small_backbone().to(torch.bfloat16)
    for fusion in FUSIONS:
        for dtype in torch.float32, torch.bfloat16:
            c = conditioner_for(b, fusion).to(dtype)
            assert torch.equal(covers(b, c, audio=songs), covers(b, None))
        c = conditioner_for(b, fusion, trained=True).to(torch.bfloat16)
        heard = covers(b, c, audio=songs)
        assert heard.dtype == torch.float32 and torch.isfinite(heard).all()


# -- training --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('fusion', HEARING)
def test_gradients_reach_the_conditioner_only(songs, fusion):
    b = small_backbone()
    c = conditioner_for(b, fusion).train().install(b.unet)
    before, start = copy.deepcopy(b.unet.state_dict()), copy.deepcopy(c.state_dict())
    text, noisy = encode_prompts(b, PROMPTS), torch.randn(2, *b.latent_shape)
    opt = torch.optim.AdamW(c.parameter_groups(1e-2))
    for _ in range(3):
        states, kwargs = c(text, songs, torch.tensor([True, False]))
        b.unet(noisy, torch.tensor([10, 900]), states, cross_attention_kwargs=kwargs).sample.pow(2).mean().backward()
        opt.step(); opt.zero_grad()
    assert all(p.grad is None for p in b.unet.parameters())
    assert all(torch.equal(a, v) for a, v in zip(before.values(), b.unet.state_dict().values()))
    assert all(not torch.equal(start[n], p) for n, p in c.named_parameters()), 'some weight never moved'


@pytest.mark.parametrize('fusion', HEARING)
def test_gradient_checkpointing_gives_the_same_gradients(songs, fusion):
    b, grads = small_backbone(), []
    noisy = torch.randn(2, *b.latent_shape)
    for on in False, True:
        if on: b.unet.train().enable_gradient_checkpointing()
        c = conditioner_for(b, fusion, trained=True).train().install(b.unet)
        states, kwargs = c(encode_prompts(b, PROMPTS), songs)
        b.unet(noisy, 500, states, cross_attention_kwargs=kwargs).sample.pow(2).mean().backward()
        grads.append([p.grad for p in c.parameters()])
    assert all(torch.allclose(x, y, rtol=1e-4, atol=1e-7) for x, y in zip(*grads))


def test_parameter_groups_hold_every_parameter_once():
    b = small_backbone()
    for fusion in FUSIONS:
        c = conditioner_for(b, fusion)
        grouped = [id(p) for g in c.parameter_groups(1e-4, gate_lr_scale=20) for p in g['params']]
        assert sorted(grouped) == sorted(id(p) for p in c.parameters())
        assert [g['lr'] for g in c.parameter_groups(1e-4)] == [1e-4] * 2 * (fusion != 'none') + [20 * 1e-4] * (fusion == 'gated')


def test_key_and_value_layers_start_as_copies():
    b = small_backbone()
    c = conditioner_for(b, 'gated')
    for name, ours in c.fuse.layers.items():
        theirs = b.unet.get_submodule(name.replace('-', '.'))
        assert torch.equal(ours.to_k.weight, theirs.to_k.weight) and torch.equal(ours.to_v.weight, theirs.to_v.weight)
        assert ours.to_k.weight.data_ptr() != theirs.to_k.weight.data_ptr()


# -- installing ------------------------------------------------------------------------------------------------------

def test_install_and_remove(songs, caplog):
    b = small_backbone()
    own = {n: p for n, p in b.unet.attn_processors.items()}
    names = list(b.unet.state_dict())
    c = conditioner_for(b, 'gated', trained=True)
    c.install(b.unet).install(b.unet)  # twice is once
    assert all(type(p) is MusicAttention and type(p.wrapped) is not MusicAttention for p in b.unet.attn_processors.values())
    assert list(b.unet.state_dict()) == names
    logging.getLogger('diffusers').addHandler(caplog.handler)
    states, kwargs = c(encode_prompts(b, PROMPTS), songs)
    with torch.no_grad(): b.unet(torch.randn(2, *b.latent_shape), 5, states, cross_attention_kwargs=kwargs)
    assert 'not expected' not in caplog.text
    MusicConditioner.remove(b.unet)
    assert b.unet.attn_processors == own


def test_attention_slicing_keeps_the_music(songs):
    b = small_backbone()
    c = conditioner_for(b, 'gated', trained=True)
    pipe = AlbumCoverPipeline.from_backbone(b, c, scheduler='ddim')
    call = lambda: pipe(PROMPTS, audio=songs, num_inference_steps=2, generator=torch.Generator().manual_seed(0), output_type='pt').images
    whole = call()
    pipe.enable_attention_slicing(1)
    assert torch.allclose(call(), whole, atol=1e-4)


def test_another_unet_is_refused():
    a, b = small_backbone(), new_tiny_backbone(build_tokenizer(PROMPTS, vocab_size=520), channels=(64, 64), vae_channels=(16, 16, 32, 32))
    with pytest.raises(AlbumGanError, match='another U-Net'): conditioner_for(a, 'gated').install(b.unet)


# -- saving ----------------------------------------------------------------------------------------------------------

def test_pipelines_round_trip_in_a_fresh_process(tmp_path, songs):
    b, fusions = small_backbone(), [None, *FUSIONS]
    for fusion in fusions:
        c = fusion and conditioner_for(b, fusion, trained=True)
        with quiet(): AlbumCoverPipeline.from_backbone(b, c, encoder='elsewhere', scheduler='dpm++').save_pretrained(tmp_path/str(fusion))
        torch.save(dict(songs=songs, cover=covers(b, c, 'dpm++', audio=songs)), tmp_path/f'{fusion}.pt')
    assert not list(tmp_path.glob('**/*.bin'))
    code = f'''
import torch
from album_gan.models.pipeline import AlbumCoverPipeline
for fusion in {fusions!r}:
    expected = torch.load(str(fusion) + '.pt')
    pipe = AlbumCoverPipeline.from_pretrained(str(fusion))
    cover = pipe({PROMPTS!r}, audio=expected['songs'], num_inference_steps=3, generator=torch.Generator().manual_seed(0), output_type='pt').images
    assert torch.equal(cover, expected['cover']), fusion
    assert pipe.config.encoder == 'elsewhere' and type(pipe.scheduler).__name__ == 'DPMSolverMultistepScheduler'
    assert (pipe.conditioner and pipe.conditioner.config.fusion) == fusion
'''
    done = subprocess.run([sys.executable, '-W', 'error::FutureWarning', '-c', code], cwd=tmp_path, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    assert 'not expected' not in done.stderr and 'newly initialized' not in done.stderr


def test_backbone_folder_is_read_by_diffusers_itself(tmp_path):
    from diffusers import StableDiffusionPipeline
    b = small_backbone()
    with quiet():
        theirs = StableDiffusionPipeline.from_pretrained(save_backbone(b, tmp_path/'b', dtype=torch.float32))
    theirs.set_progress_bar_config(disable=True)
    kwargs = dict(num_inference_steps=3, negative_prompt='blurred', num_images_per_prompt=2)
    image = theirs(PROMPTS[0], guidance_scale=3.0, generator=torch.Generator().manual_seed(0), output_type='pt', **kwargs).images
    kwargs['steps'] = kwargs.pop('num_inference_steps')
    assert torch.allclose(covers(b, None, prompt=PROMPTS[0], guidance_text=3.0, **kwargs), image, atol=1e-4)


# -- the call --------------------------------------------------------------------------------------------------------

def test_batches(backbone, songs):
    c = conditioner_for(backbone, 'gated', trained=True)
    size = (3, backbone.resolution, backbone.resolution)
    run = lambda prompt, audio, **kw: covers(backbone, c, prompt=prompt, audio=audio, steps=2, **kw)
    assert run(PROMPTS[0], songs[0]).shape == (1, *size)
    assert run(PROMPTS, songs[0]).shape == (2, *size)
    assert run(PROMPTS[0], songs).shape == (2, *size)
    assert run(PROMPTS[0], list(songs), guidance_music=0).shape == (2, *size)
    four = run(PROMPTS, songs, num_images_per_prompt=2, generator=[torch.Generator().manual_seed(s) for s in (0, 1, 0, 1)])
    for i, (p, s, g) in enumerate([(0, 0, 0), (0, 0, 1), (1, 1, 0), (1, 1, 1)]):
        one = run(PROMPTS[p], songs[s], generator=torch.Generator().manual_seed(g))
        assert torch.allclose(four[i], one[0], atol=1e-3), 'a cover depends on its neighbours'


def test_output_types_and_callback(songs):
    b = small_backbone()
    pipe = AlbumCoverPipeline.from_backbone(b, conditioner_for(b, 'cross', trained=True), scheduler='ddpm')
    pipe.set_progress_bar_config(disable=True)
    seen = []
    def callback(pipe, i, t, tensors): seen.append((i, int(t), tuple(tensors['latents'].shape))); return {'latents': tensors['latents'] * 0}
    call = lambda **kw: pipe(PROMPTS, audio=songs, num_inference_steps=2, generator=torch.Generator().manual_seed(0), **kw)
    zero, = call(output_type='latent', callback_on_step_end=callback, return_dict=False)
    assert zero.abs().max() == 0 and [s[0] for s in seen] == [0, 1] and seen[0][2] == (2, *b.latent_shape)
    array, tensor, pictures = (call(output_type=t).images for t in ('np', 'pt', 'pil'))
    assert array.shape == (2, 64, 64, 3) and np.array_equal(array, tensor.permute(0, 2, 3, 1).numpy()) and 0 <= array.min() and array.max() <= 1
    assert np.array_equal(np.asarray(pictures[1]), (array[1] * 255).round().astype('uint8'))
    noise = torch.randn(2, *b.latent_shape)
    assert torch.equal(call(latents=noise, output_type='pt').images, call(latents=noise, output_type='pt').images)


@pytest.mark.parametrize('kwargs, words', [
    (dict(audio=torch.zeros(3, T, D)), '2 prompts and 3 songs'),
    (dict(audio=torch.zeros(T, D + 1)), rf'reads \[T, {D}\]'),
    (dict(audio=[torch.zeros(T, D), torch.zeros(T + 1, D)]), 'all of one length'),
    (dict(audio=torch.zeros(100)), 'sample_rate='),
    (dict(audio=dict()), 'audio is a dict'),
    (dict(audio=torch.zeros(1, 1, T, D)), r'\(1, 1, 40, 24\)'),
    (dict(negative_prompt=['a', 'b', 'c']), '3 negative prompts'),
    (dict(output_type='jpg'), 'pil, np, pt, latent'),
    (dict(num_inference_steps=0), 'num_inference_steps'),
    (dict(generator=[torch.Generator()]), '1 generators for 2 covers'),
    (dict(latents=torch.zeros(1, 8, 8, 8)), 'start from'),
    (dict(height=60), 'multiples of 8'),
    (dict(prompt=[]), 'prompt must be'),
    (dict(prompt=['a', None]), 'prompt must be'),
])
def test_mistakes_are_answered_in_one_sentence(kwargs, words):
    b = small_backbone()
    pipe = AlbumCoverPipeline.from_backbone(b, conditioner_for(b, 'gated'), encoder='none-such')
    pipe._encoders['none-such'] = None  # never asked
    with pytest.raises(AlbumGanError, match=words): pipe(**dict(prompt=PROMPTS) | kwargs)


# -- other backbones -------------------------------------------------------------------------------------------------

def stable_diffusion_like(folder, **unet):
    """Stable Diffusion 1.x's layout, block types and schedule at a small width, saved by diffusers."""
    tokenizer = build_tokenizer(PROMPTS, vocab_size=520)
    text = CLIPTextModel(CLIPTextConfig(vocab_size=len(tokenizer), hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
                                        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id))
    vae = AutoencoderKL(block_out_channels=(8, 8, 16, 16), down_block_types=('DownEncoderBlock2D',) * 4, up_block_types=('UpDecoderBlock2D',) * 4,
                        latent_channels=4, layers_per_block=2, norm_num_groups=4, sample_size=256)
    net = UNet2DConditionModel(**dict(sample_size=32, in_channels=4, out_channels=4, block_out_channels=(16, 32, 64, 64), attention_head_dim=8,
                                      layers_per_block=2, cross_attention_dim=48, norm_num_groups=8) | unet)
    scheduler = PNDMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule='scaled_linear', skip_prk_steps=True, steps_offset=1, set_alpha_to_one=False)
    return save_backbone(Backbone(vae, text, tokenizer, net, scheduler), folder, dtype=torch.float32)


def test_stable_diffusion_shape(tmp_path, songs):
    b = load_backbone(stable_diffusion_like(tmp_path/'sd'))
    assert (b.resolution, b.width, b.latent_shape, b.prediction_type) == (256, 48, (4, 32, 32), 'epsilon')
    assert b.vae.config.scaling_factor == pytest.approx(0.18215)
    c = conditioner_for(b, 'gated')
    assert len(c.fuse.layers) == 16  # as many as Stable Diffusion has
    for name in 'pndm', 'ddim', 'EulerDiscreteScheduler':
        assert make_scheduler(name, b.scheduler.config).config.beta_schedule == 'scaled_linear'
        plain = covers(b, None, name, steps=2, prompt=PROMPTS[0])
        assert plain.shape == (1, 3, 256, 256) and torch.equal(covers(b, c, name, steps=2, prompt=PROMPTS[0], audio=songs[0]), plain)
    trained = conditioner_for(b, 'gated', trained=True)
    assert not torch.equal(covers(b, trained, name, steps=2, prompt=PROMPTS[0], audio=songs[0]), plain)


def test_backbones_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(AlbumGanError, match='reads 9 channels'): load_backbone(stable_diffusion_like(tmp_path/'inpainting', in_channels=9))
    folder = stable_diffusion_like(tmp_path/'sdxl')
    index = folder/'model_index.json'
    index.write_text(json.dumps(json.loads(index.read_text()) | dict(text_encoder_2=['transformers', 'CLIPTextModelWithProjection'])))
    with pytest.raises(AlbumGanError, match='two text encoders'): load_backbone(folder)
    with pytest.raises(AlbumGanError, match='choose tiny'): load_backbone('no such folder')
    with pytest.raises(AlbumGanError, match=r'4.3 GB.*load_backbone.*tiny, which works now'): load_backbone('lambdalabs/miniSD-diffusers@none', local_files_only=True)


def test_covers_to_latents_and_back(backbone):
    pixels = torch.rand(2, 3, backbone.resolution, backbone.resolution) * 2 - 1
    latents = encode_covers(backbone, pixels)
    assert latents.shape == (2, *backbone.latent_shape) and torch.equal(latents, encode_covers(backbone, pixels))
    g = lambda: torch.Generator().manual_seed(0)
    assert torch.equal(encode_covers(backbone, pixels, g()), encode_covers(backbone, pixels, g()))
    latents.requires_grad_(True)
    decode_latents(backbone, latents).sum().backward()  # the pixel loss needs this
    assert latents.grad.abs().sum() > 0
