"""The MDGAN: five networks, their optimizers and the random numbers of a training."""

from typing import Any

import torch
from torch import Tensor, nn

from models.mdgan import losses, step_numbers
from models.mdgan.average import Average
from models.mdgan.convolutions import Discriminator
from models.mdgan.cuda_graph import CudaRecorder, StepGraph
from models.mdgan.devices import full_precision, send, use_arithmetic
from models.mdgan.networks import Encoder, Generator
from models.mdgan.params import MdganParams as MdganParams
from models.mdgan.params import learning_rate
from models.mdgan.pca import Pca
from models.mdgan.phases import Losses as Losses
from models.mdgan.phases import Phases
from models.mdgan.shape import Source


class Mdgan:
    """The five networks, their optimizers and the random numbers of one training.

    Args:
        params: of the training.
        n_frames: frames in a snippet.
        seed: of initial weights, batches, labels and prior samples.
        device: "cpu" or "cuda".
        pca: the dense path begins as this PCA; without one it begins at random.
    """

    def __init__(
        self,
        params: MdganParams,
        n_frames: int,
        seed: int,
        device: str = "cpu",
        pca: Pca | None = None,
    ):
        self.params = params
        self.shape = params.shape(n_frames)
        self.device = torch.device(device)
        use_arithmetic(self.device, params.precision)
        # Always on the CPU, so that batches and labels are the same on every device.
        self.rng = torch.Generator().manual_seed(seed)
        # A separate generator: the monitor's labels must not change what the others draw.
        self.monitor_rng = torch.Generator().manual_seed(seed)
        self.snippets_seen = 0
        # Layers draw their weights from torch's global generator; restore its state afterwards.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.encoder = Encoder(self.shape)
            self.generator = Generator(self.shape)
            self.nets: dict[str, nn.Module] = {
                "encoder": self.encoder,
                "generator": self.generator,
                "manifold_disc": Discriminator(self.shape),
                "diffusion_disc": Discriminator(self.shape),
                "monitor_disc": Discriminator(self.shape),
            }
        if pca is not None:
            self.encoder.start_as(pca)
            self.generator.start_as(pca)
        self.averaged: dict[str, Average] = {}
        self.optimizers: dict[str, torch.optim.Adam] = {}
        for name, net in self.nets.items():
            net.train()
            net.to(self.device)
            if params.channels_last:
                net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            if params.ema_decay and name in ("encoder", "generator"):
                self.averaged[name] = Average(net, params.ema_decay)
            if params.compilation == "default":
                net.compile()
            self.optimizers[name] = torch.optim.Adam(
                net.parameters(), lr=params.lr, betas=(params.beta1, 0.999), fused=True,
                capturable=self._is_recorded,
            )  # fmt: skip
        self.phases = Phases(params, self.nets, self.optimizers, self.device)
        # Learning rates of encoder and generator, and of discriminators; on a GPU, optimizers read
        # them there.
        self._rates = torch.zeros(2, device=self.device)
        self._recorder = CudaRecorder(self.device) if self._is_recorded else None
        self._graphs: dict[tuple[bool, int, int], StepGraph] = {}

    @property
    def _is_recorded(self) -> bool:
        return self.params.compilation == "cuda_graphs"

    @property
    def is_adversarial(self) -> bool:
        """True once the adversarial terms have begun."""
        return self.snippets_seen >= self.params.adversarial_from * self.params.n_snippets

    def kept(self, name: str) -> nn.Module:
        """The encoder or generator to evaluate and keep; with averaged weights if there are any."""
        return self.averaged[name].module if name in self.averaged else self.nets[name]

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Latents [batch, latent_dim] of snippets [batch, 1, n_freq, n_frames]."""
        # In evaluation mode a latent does not depend on the rest of the batch.
        with full_precision():
            z: Tensor = self.kept("encoder").eval()(x)
        return z

    @torch.no_grad()
    def decode(self, z: Tensor, source: Source = "encoded") -> Tensor:
        """Snippets [batch, 1, n_freq, n_frames] of latents [batch, latent_dim]."""
        with full_precision():
            snippets: Tensor = self.kept("generator").eval()(z, source)
        return snippets

    def sample_prior(self, n: int, rng: torch.Generator | None = None) -> Tensor:
        """Latents [n, latent_dim] from the prior, on the device."""
        p = self.params
        z = losses.sample_prior(n, p.latent_dim, p.prior, p.prior_scale, rng or self.rng)
        return send(z, self.device)

    def train_step(self, x: Tensor, n_sounding: int | None = None) -> Losses:
        """Run all phases once for a minibatch of real snippets.

        Args:
            x: snippets [batch, 1, n_freq, n_frames], the sounding ones first.
            n_sounding: how many of them hold sound, at least one; None for all.

        Returns:
            The unweighted loss of every phase, each a scalar without gradient on the device.
        """
        for net in self.nets.values():
            if not net.training:  # as encode and decode leave it
                net.train()
        n = len(x) if n_sounding is None else n_sounding
        names = step_numbers.names_of(self.params, self.is_adversarial)
        drawn = step_numbers.draw(self.params, names, n, self.rng, self.monitor_rng)
        drawn["rates"] = self._set_rates()
        packed = step_numbers.pack(drawn, pinned=self.device.type == "cuda")
        x, packed = send(x, self.device), send(packed, self.device)
        if self.params.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        is_adversarial = self.is_adversarial

        def run(x: Tensor, packed: Tensor) -> Losses:
            numbers = step_numbers.unpack(packed, drawn)
            self._rates.copy_(numbers.pop("rates"))
            return self.phases.step(x, n, numbers, is_adversarial)

        out = self._graph(len(x), n)(run, x, packed) if self._recorder else run(x, packed)
        for name, average in self.averaged.items():
            average.update_parameters(self.nets[name])
        self.snippets_seen += len(x)
        return out

    def _graph(self, n: int, n_sounding: int) -> StepGraph:
        """The graph of this kind of step; another kind's is given up, with its memory."""
        assert self._recorder is not None
        key = self.is_adversarial, n, n_sounding
        if key not in self._graphs:
            self._graphs = {key: StepGraph(self._recorder)}
        return self._graphs[key]

    def _set_rates(self) -> Tensor:
        """Set the learning rates of this step, and give both of them [2]."""
        rate = learning_rate(self.params, self.snippets_seen)
        p = self.params
        rates = rate, (p.lr if p.is_disc_lr_constant else rate) * p.disc_lr_ratio
        on_gpu = self.device.type == "cuda"
        for name, optimizer in self.optimizers.items():
            i = int(name.endswith("_disc"))
            optimizer.param_groups[0]["lr"] = self._rates[i] if on_gpu else rates[i]
        return torch.tensor(rates)

    def _optimizer_state(self, name: str) -> dict[str, Any]:
        state = self.optimizers[name].state_dict()
        group = state["param_groups"][0]
        group["lr"] = float(group["lr"])  # from the GPU, if it is there
        return state

    def state_dict(self) -> dict[str, Any]:
        """The whole state: a training that loads it goes on as if it had never stopped."""
        return {
            "nets": {name: net.state_dict() for name, net in self.nets.items()},
            "averaged": {name: average.state_dict() for name, average in self.averaged.items()},
            "optimizers": {name: self._optimizer_state(name) for name in self.optimizers},
            "rng": self.rng.get_state(),
            "monitor_rng": self.monitor_rng.get_state(),
            "snippets_seen": self.snippets_seen,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load a state that ``state_dict`` gave."""
        for name, net in self.nets.items():
            net.load_state_dict(state["nets"][name])
            optimizer = self.optimizers[name]
            optimizer.load_state_dict(state["optimizers"][name])
            optimizer.param_groups[0]["capturable"] = self._is_recorded
            for parameter, moments in optimizer.state.items():
                for key in ("exp_avg", "exp_avg_sq"):
                    # The fused step walks through memory: moments need the layout of their weights.
                    moments[key] = torch.empty_like(parameter).copy_(moments[key])
        for name, average in self.averaged.items():
            average.load_state_dict(state["averaged"][name])
        # A generator's state stays on the CPU, wherever a file was mapped to.
        self.rng.set_state(state["rng"].cpu())
        self.monitor_rng.set_state(state["monitor_rng"].cpu())
        self.snippets_seen = state["snippets_seen"]
        self._graphs = {}  # they know where the earlier moments lay
