"""Backbones of real size, at reduced width: everything that is read from their configurations, 16 bits, memory, and a whole run."""
import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from album_gan.audio.devices import fast_dtype
from album_gan.data.core import AlbumGanError, project_root
from album_gan.models import backbone as backbones
from album_gan.models.backbone import decode_latents, encode_covers, encode_prompts, load_backbone, save_backbone
from album_gan.models.conditioner import MusicConditioner, MusicAttention
from album_gan.models.pipeline import AlbumCoverPipeline
from album_gan.models.real_backbones import untrained_backbone


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """miniSD's layout, an eighth as wide, with an index and a VAE configuration as early diffusers wrote them."""
    path = save_backbone(untrained_backbone('sd1', 256, narrow=8), tmp_path_factory.mktemp('mini')/'miniSD', torch.float32)
    index = json.loads((path/'model_index.json').read_text()) | dict(_diffusers_version='0.8.0', safety_checker=['stable_diffusion', 'StableDiffusionSafetyChecker'], feature_extractor=['transformers', 'CLIPFeatureExtractor'])
    (path/'model_index.json').write_text(json.dumps(index))
    for part, gone in (('vae', ('scaling_factor', 'shift_factor', 'latents_mean', 'latents_std', 'use_quant_conv')), ('scheduler', ('prediction_type', 'timestep_spacing'))):
        file = path/part/('config.json' if part == 'vae' else 'scheduler_config.json')
        file.write_text(json.dumps({k: v for k, v in json.loads(file.read_text()).items() if k not in gone}))
    return path


def gated(b, trained=True):
    torch.manual_seed(0)
    c = MusicConditioner.for_unet(b.unet, 'gated', 16)
    if trained:
        for g in c.fuse.gates: g.data.fill_(0.5)
    return c.install(b.unet)


def test_what_configurations_leave_out_is_as_it_was_meant(folder):
    b = load_backbone(folder)
    assert (b.resolution, b.latent_shape, b.width, b.length, b.prediction_type, b.dtype, b.large) == (256, (4, 32, 32), 96, 77, 'epsilon', torch.float32, False)
    assert b.vae.config.scaling_factor == pytest.approx(0.18215)


def test_sdxl_is_refused_before_its_weights_are_fetched(tmp_path, monkeypatch):
    (tmp_path/'model_index.json').write_text(json.dumps({'_class_name': 'StableDiffusionXLPipeline', 'text_encoder_2': ['transformers', 'CLIPTextModelWithProjection']}))
    asked = []
    monkeypatch.setattr(backbones, 'snapshot_download', lambda repo, allow_patterns, **kwargs: asked.append(allow_patterns) or str(tmp_path))
    with pytest.raises(AlbumGanError, match='SDXL-type backbone with two text encoders'): load_backbone('stabilityai/sdxl-turbo')
    assert len(asked) == 1 and not [p for p in asked[0] if p.endswith('safetensors')]


def test_velocity_and_another_width(tmp_path):
    b = load_backbone(save_backbone(untrained_backbone('sd2', 768, narrow=8), tmp_path, torch.float32))
    assert (b.resolution, b.width, b.prediction_type) == (768, 128, 'v_prediction')


def test_what_does_not_fit_is_refused(folder, tmp_path):
    b = untrained_backbone('sd1', 256, narrow=8)
    b.scheduler.register_to_config(prediction_type='sample')
    with pytest.raises(AlbumGanError, match="predicts 'sample'"): load_backbone(save_backbone(b, tmp_path/'x0'))
    b = untrained_backbone('sd1', 256, narrow=8)
    b.text_encoder = untrained_backbone('sd2', 256, narrow=8).text_encoder
    with pytest.raises(AlbumGanError, match='width 96.*makes 128'): load_backbone(save_backbone(b, tmp_path/'mixed'))


def test_sixteen_bits(folder, tmp_path):
    """Half the bytes, nearly the same gradient for what is trained in 32 bits beside it."""
    full, half = load_backbone(folder), load_backbone(folder, dtype='bfloat16')
    assert half.fingerprint != full.fingerprint and {p.dtype for m in half.modules.values() for p in m.parameters()} == {torch.bfloat16}
    torch.manual_seed(1)
    x, states, music, t = torch.randn(1, 4, 32, 32), encode_prompts(full, ['a cover']), torch.randn(1, 20, 16), torch.tensor([500])
    grads = []
    for b in full, half:
        c = gated(b)
        text, kwargs = c(states, music)
        b.unet(x, t, encoder_hidden_states=text, cross_attention_kwargs=kwargs).sample.float().square().mean().backward()
        grads.append(torch.cat([p.grad.flatten() for p in c.parameters()]))
    assert torch.cosine_similarity(*grads, dim=0) > 0.97
    half = load_backbone(save_backbone(untrained_backbone('sd1', 64, narrow=8), tmp_path/'small'), dtype='bfloat16')  # many processors only pretend to count in 16 bits, and take seconds for a large picture
    image = AlbumCoverPipeline.from_backbone(half, gated(half)).__call__('a cover', audio=torch.randn(20, 16), num_inference_steps=2, output_type='np').images
    assert image.shape == (1, 64, 64, 3)


def test_checkpointing_changes_no_gradient(folder):
    grads = []
    for flag in False, True:
        b = load_backbone(folder, checkpointing=flag)
        c = gated(b)
        torch.manual_seed(1)
        text, kwargs = c(encode_prompts(b, ['a cover']), torch.randn(1, 20, 16))
        b.unet(torch.randn(1, 4, 32, 32), torch.tensor([500]), encoder_hidden_states=text, cross_attention_kwargs=kwargs).sample.square().mean().backward()
        grads.append([p.grad for p in c.parameters()])
    assert b.unet.is_gradient_checkpointing and all(torch.allclose(x, y, atol=1e-7) for x, y in zip(*grads))
    assert all(g.abs().sum() > 0 for g in grads[1][-3:])


def test_sliced_attention_keeps_the_music(folder):
    """diffusers swaps attention processors; music must survive that, before and after it was attached."""
    music, picture = torch.randn(20, 16, generator=torch.Generator().manual_seed(0)), []
    draw = lambda pipe: pipe('a cover', audio=music, num_inference_steps=1, guidance_text=1.0, guidance_music=1.0, generator=torch.Generator().manual_seed(0), output_type='latent').images
    plain = AlbumCoverPipeline.from_backbone(b := load_backbone(folder), gated(b))
    sliced = AlbumCoverPipeline.from_backbone(b := load_backbone(folder, attention='sliced'), gated(b))
    late = AlbumCoverPipeline.from_backbone(b := load_backbone(folder), gated(b))
    late.enable_attention_slicing()
    deaf = AlbumCoverPipeline.from_backbone(b := load_backbone(folder))
    assert torch.allclose(draw(plain), draw(sliced), atol=1e-4) and torch.allclose(draw(plain), draw(late), atol=1e-4)
    assert not torch.allclose(draw(plain), draw(deaf), atol=1e-3)


def test_portions(folder, monkeypatch):
    b = load_backbone(folder)
    sizes = []
    b.vae.encoder.register_forward_pre_hook(lambda m, args: sizes.append(len(args[0])))
    b.vae.decoder.register_forward_pre_hook(lambda m, args: sizes.append(len(args[0])))
    x = torch.rand(5, 3, 256, 256)*2 - 1
    latents = encode_covers(b, x)
    assert decode_latents(b, latents).shape == x.shape and sizes == [4, 1, 4, 1]
    assert torch.allclose(latents[4:], encode_covers(b, x[4:]), atol=1e-4)


def test_size_decides(folder, monkeypatch):
    monkeypatch.setattr(backbones, 'LARGE', 1000)
    b = load_backbone(folder)
    assert b.large and b.dtype == fast_dtype('cpu') and b.unet.is_gradient_checkpointing
    assert load_backbone(folder, dtype='float32', checkpointing=False).dtype == torch.float32


def test_one_set_of_weights_is_fetched(folder, monkeypatch):
    """The hub's repositories hold them several times; the patterns are asked about names as they are there."""
    import fnmatch
    asked = []
    def snapshot(repo, revision, allow_patterns, ignore_patterns, local_files_only):
        asked.append((revision, allow_patterns, ignore_patterns))
        return str(folder)
    monkeypatch.setattr(backbones, 'snapshot_download', snapshot)
    assert backbones.find_backbone('owner/model@refs/pr/1') == folder
    (_, first, _), (revision, allow, ignore) = asked
    assert not [p for p in first if p.endswith(('safetensors', 'bin'))]  # what does not fit is refused before its weights are fetched
    fetched = [f for f in ('model_index.json', 'unet/config.json', 'unet/diffusion_pytorch_model.safetensors', 'unet/diffusion_pytorch_model.fp16.safetensors', 'unet/diffusion_pytorch_model.non_ema.safetensors',
                           'unet/diffusion_pytorch_model.bin', 'safety_checker/model.safetensors', 'v1-5-pruned.safetensors', 'tokenizer/vocab.json', 'tokenizer/merges.txt')
               if any(fnmatch.fnmatch(f, p) for p in allow) and not any(fnmatch.fnmatch(f, p) for p in ignore)]
    assert revision == 'refs/pr/1' and fetched == ['model_index.json', 'unet/config.json', 'unet/diffusion_pytorch_model.safetensors', 'tokenizer/vocab.json', 'tokenizer/merges.txt']


@pytest.mark.slow
@pytest.mark.skipif('slow' not in os.environ.get('FLAGS', ''), reason='FLAGS=slow: two to five minutes each')
@pytest.mark.parametrize('fusion, recipe, steps', (('gated', 'modern', 2), ('cross', 'paper', 1), ('concat', 'paper', 1)))
def test_the_notebook_runs_on_it(folder, tmp_path, fusion, recipe, steps):
    """train.ipynb as a user runs it, at 256 pixels and reduced width; the paper's step goes back through the whole sampler."""
    out = subprocess.run([sys.executable, '-m', 'papermill', str(project_root()/'nbs'/'train.ipynb'), str(tmp_path/'out.ipynb'), '-p', 'backbone', str(folder), '-p', 'fusion', fusion, '-p', 'recipe', recipe, '-p', 'max_steps', str(steps),
                          '-p', 'albums', 'demo-24', '-p', 'n_eval', '4', '-p', 'num_inference_steps', '2', '-p', 'results', str(tmp_path/'results'), '-p', 'run', 'mini'],
                         capture_output=True, text=True, stdin=subprocess.DEVNULL, cwd=tmp_path, env=os.environ | {'ALBUM_GAN_ROOT': str(project_root())})
    assert out.returncode == 0, out.stderr[-2000:]
    run = tmp_path/'results'/'runs'/'mini'
    assert (run/'samples'/'music.png').exists() and json.loads((run/'metrics.json').read_text())['metrics']['n'] > 0
    assert len((run/'loss.csv').read_text().split()) == 1 + steps
    assert len(load_file(run/'weights'/'diffusion_pytorch_model.safetensors')) > (16 if fusion == 'gated' else 4)  # gated adds some to every block
