"""Translation of the golden arrays' PyTorch parameters to this project's Flax parameters; sizes come from them."""

import re

import jax
import jax.numpy as jnp
import numpy as np

from mamba_jax import actor_critic as ac
from mamba_jax import world_model as wm
from mamba_jax.config import ActorCriticConfig, WorldModelConfig
from mamba_jax.nn.blocks import Head
from mamba_jax.nn.observation import Decoder, Encoder
from mamba_jax.nn.policy import ActionSpec
from mamba_jax.nn.rssm import RSSM

MODULES = {
    "encoder": "encoder",
    "dynamics": "rssm",
    "heads.decoder": "decoder",
    "heads.reward": "reward",
    "heads.cont": "cont",
    "heads.multi_decoder": "window_decoder",
    "heads.multi_reward": "window_reward",
    "heads.multi_cont": "window_cont",
}
NORM = {"weight": "scale", "bias": "bias"}
LINEAR = {"weight": "kernel", "bias": "bias"}


def subset(arrays: dict, prefix: str) -> dict:
    """Entries whose name starts with `prefix`, without it."""
    return {name[len(prefix) :]: value for name, value in arrays.items() if name.startswith(prefix)}


def insert(tree: dict, path: str, value) -> None:
    *parents, leaf = path.split("/")
    for parent in parents:
        tree = tree.setdefault(parent, {})
    tree[leaf] = jnp.asarray(np.asarray(value, np.float64))


def stack_path(index: int, prefix: str, first: str | None, rest: str) -> tuple[str, dict]:
    """Flax path of entry `index` of a Sequential of (linear, norm, SiLU); `first` names a special first layer."""
    layer, kind = divmod(index, 3)
    if first is not None and layer == 0:
        return (f"{prefix}{first}", LINEAR) if kind == 0 else (f"{prefix}{first}/norm", NORM)
    layer -= first is not None
    return (f"{prefix}{rest}/linear_{layer}", LINEAR) if kind == 0 else (f"{prefix}{rest}/norm_{layer}", NORM)


def rssm_path(name: str) -> tuple[str, dict]:
    stacks = {
        "_inp_layers": ("input_block", "input_mlp"),
        "_img_out_layers": (None, "prior_mlp"),
        "_obs_out_layers": ("posterior_block", "posterior_mlp"),
    }
    plain = {
        "_cell._layer": ("gru_linear", LINEAR),
        "_cell._norm": ("gru_norm", NORM),
        "_ims_stat_layer": ("prior_out", LINEAR),
        "_obs_stat_layer": ("posterior_out", LINEAR),
    }
    if name in plain:
        return plain[name]
    stack, index = name.split(".")
    return stack_path(int(index), "", *stacks[stack])


def head_path(name: str) -> tuple[str, dict]:
    """Paths inside encoder, decoder, heads, actor and critic."""
    name = name.removeprefix("_mlp.")
    if match := re.fullmatch(r"_cnn\.layers\.(\d+)(\.norm)?", name):
        layer = int(match[1]) // 3
        return (f"cnn/norm_{layer}", NORM) if match[2] else (f"cnn/Conv_{layer}", LINEAR)
    if match := re.fullmatch(r"(?:layers|_pre_layers)\.(\d+)", name):
        return stack_path(int(match[1]), "", None, "mlp")
    if match := re.fullmatch(r"mean_layer\.(\w+)", name):
        return "out_" + {"time_step": "time"}.get(match[1], match[1]), LINEAR
    return {"mean_layer": ("out", LINEAR), "_dist_layer": ("out", LINEAR)}[name]


def image_decoder_path(name: str) -> tuple[str, dict]:
    if name == "_cnn._linear_layer":
        return "cnn_image/linear", LINEAR
    if match := re.fullmatch(r"_cnn\.layers\.(\d+)(\.norm)?", name):
        layer = int(match[1]) // 3
        return (f"cnn_image/norm_{layer}", NORM) if match[2] else (f"cnn_image/ConvTranspose_{layer}", LINEAR)
    return head_path(name)


def to_flax(arrays: dict, path_of) -> dict:
    """{"params": tree} from torch arrays of one module; linear weights are transposed."""
    tree: dict = {}
    for name, value in arrays.items():
        if name == "W":
            insert(tree, "initial_deter", value[0])
            continue
        module, leaf = name.rsplit(".", 1)
        path, names = path_of(module)
        value = np.asarray(value)
        if names is LINEAR and leaf == "weight":
            value = kernel(value, path)
        insert(tree, f"{path}/{names[leaf]}", value)
    return {"params": tree}


def kernel(weight: np.ndarray, path: str) -> np.ndarray:
    """Torch weight -> Flax kernel."""
    if weight.ndim == 2:
        return weight.T
    if "ConvTranspose" in path:
        return weight.transpose(2, 3, 0, 1)[::-1, ::-1]
    return weight.transpose(2, 3, 1, 0)


def model_params(arrays: dict) -> dict:
    """Parameters of a whole world model by module, from names such as `dynamics.W`, `heads.reward.layers.0.weight`."""
    params = {}
    for torch_name, name in MODULES.items():
        own = subset(arrays, torch_name + ".")
        if own:
            params[name] = to_flax(own, rssm_path if name == "rssm" else head_path)
    return params


def count_layers(tree: dict) -> int:
    return sum(name.startswith("linear_") for name in tree["params"].get("mlp", {}))


def width(tree: dict) -> int:
    return tree["params"]["mlp"]["linear_0"]["kernel"].shape[1]


def make_rssm(params: dict, stoch: int, classes: int, action_size: int, unimix: float) -> RSSM:
    """The RSSM with the sizes of its parameters ({"params": ...})."""
    tree = params["params"]
    deter = tree["initial_deter"].shape[0]
    return RSSM(
        deter=deter,
        stoch=stoch,
        classes=classes,
        hidden=tree["input_block"]["kernel"].shape[1],
        action_size=action_size,
        embed_size=tree["posterior_block"]["kernel"].shape[0] - deter,
        unimix=unimix,
        input_layers=1 + len(tree.get("input_mlp", {})) // 2,
        output_layers=len(tree["prior_mlp"]) // 2,
    )


def make_model(params: dict, shapes: dict, stoch: int, classes: int, action_size: int, **options) -> wm.WorldModel:
    """A world model whose modules have the sizes of the parameters; `options` are fields of WorldModelConfig."""
    config = WorldModelConfig(stoch=stoch, classes=classes, **options)

    def head(name):
        if name not in params:
            return None
        return Head(count_layers(params[name]), width(params[name]), params[name]["params"]["out"]["bias"].shape[0])

    def decoder(name):
        return Decoder(shapes, count_layers(params[name]), width(params[name]), 1) if name in params else None

    encoder = (
        Encoder(shapes, count_layers(params["encoder"]), width(params["encoder"]), 1) if "encoder" in params else None
    )
    return wm.WorldModel(
        encoder=encoder,
        rssm=make_rssm(params["rssm"], stoch, classes, action_size, config.unimix) if "rssm" in params else None,
        decoder=decoder("decoder"),
        reward=head("reward"),
        cont=head("cont"),
        window_decoder=decoder("window_decoder"),
        window_reward=head("window_reward"),
        window_cont=head("window_cont"),
        recall=None,
        config=config,
        shapes=shapes,
    )


def make_behaviour(actor: dict, critic: dict, spec: ActionSpec, **options) -> ac.ActorCritic:
    """Actor and critic modules with the sizes of their parameters; `options` are fields of ActorCriticConfig."""
    config = ActorCriticConfig(layers=count_layers(actor), units=width(actor), **options)
    behaviour = ac.make_actor_critic(config, spec)
    critic_head = Head(count_layers(critic), width(critic), critic["params"]["out"]["bias"].shape[0])
    return behaviour._replace(critic=critic_head)


def force(index, classes: int):
    """Gumbel noise that makes `discrete.sample` choose the recorded index (...) -> (..., K)."""
    return jax.nn.one_hot(jnp.asarray(index), classes) * 1e6


def assert_trees_close(actual: dict, expected: dict, rtol: float, atol: float = 1e-9) -> None:
    """Compares the leaves that `expected` has with those of `actual` at the same path; scale-aware tolerance."""
    assert jax.tree.leaves(expected), "nothing to compare"
    flat = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(actual)}
    for path, leaf in jax.tree_util.tree_leaves_with_path(expected):
        close(flat[jax.tree_util.keystr(path)], leaf, rtol, atol, jax.tree_util.keystr(path))


def close(actual, expected, rtol: float, atol: float = 1e-9, name: str = "") -> None:
    """np.testing.assert_allclose with an absolute part relative to the largest expected entry."""
    expected = np.asarray(expected, np.float64)
    scale = np.max(np.abs(expected), initial=0.0)
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=rtol, atol=atol + rtol * scale, err_msg=name)


def sequences(arrays: dict) -> wm.Sequences:
    """Golden batch `in/data/*` (B, T, ...) as time-major training data."""
    data = {
        name: jnp.asarray(np.moveaxis(value, 1, 0).astype(np.float64))
        for name, value in subset(arrays, "in/data/").items()
    }
    flags = {name: data.pop(name) > 0 for name in ("is_first", "is_terminal")}
    action = data.pop("action")
    data.pop("discount")
    data["time"] = data.pop("time_step")
    return wm.Sequences(data, action, **flags)


def shapes_of(data: wm.Sequences) -> dict:
    """Shapes of the observation's entries, without time and batch."""
    return {name: value.shape[2:] for name, value in data.observation.items()}


def time_major(array) -> jax.Array:
    return jnp.moveaxis(jnp.asarray(array), 0, 1)
