"""Runs FlexAttention's CUDA kernels without a GPU: torch writes them, Triton's interpreter computes them on the CPU.

    python tests/oracles/run_cuda_kernels.py OUT

Torch is told that there is an H100 and generates what it would for one: the Triton kernels of FlexAttention, forward
and backward, with our terms of distance and our mask inside. Triton's interpreter runs them, on memory that is filled
with NaN before it is written, and values and all gradients are compared with `ops/reference.py`. Every kernel is then
compiled to machine code for A100 (sm_80) and H100 (sm_90), and must fit into their shared memory. The environment is
told in `README.md`. OUT is a new folder for the kernels' sources. What this cannot show is the hardware itself.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import inspect
import os
import re
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

SHARED_MEMORY = {80: 166_912, 90: 232_448}
IMPORTS = """
import triton
import triton.language as tl
from torch._inductor.runtime import triton_helpers
from torch._inductor.runtime.triton_helpers import libdevice, math as tl_math
"""
BLOCK_SIZES = {"XBLOCK": 64, "YBLOCK": 16, "R0_BLOCK": 64}


def main() -> None:
    out = Path(sys.argv[1])
    if "--compile" in sys.argv:
        compile_kernels(out)
        return
    out.mkdir(parents=True)
    os.environ["TRITON_INTERPRET"] = "1"
    run_kernels(out)
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    subprocess.run([sys.executable, __file__, str(out), "--compile"], check=True, env=environment)


def run_kernels(out: Path) -> None:
    """Compares what the interpreted kernels give with the reference, case by case."""
    import torch

    sys.path.insert(0, str(Path(__file__).parents[1] / "ops"))
    import test_relative_attention as cases

    from transformer_xl.ops import flex

    machine = Machine(out)
    flex_module = sys.modules[flex.flex_attention.__module__]
    options = flex_module._apply_kernel_options
    # What torch decides by the device of its inputs, which lie on the CPU here.
    flex_module._validate_device = lambda *tensors: None
    flex_module._apply_kernel_options = lambda *given: {**options(*given), "OUTPUT_LOGSUMEXP": True}
    flex.flex_attention = torch.compile(flex.flex_attention, backend=machine.backend)

    single = [
        *cases.LONG_CASES,
        cases.Case(7, 20, cases.ABSOLUTE, "causal"),
        cases.Case(7, 3, cases.SHAW, "padding"),
        cases.Case(130, 20, cases.TRANSFORMER_XL, "window"),
        cases.Case(130, 150, cases.ALL_TERMS, "padding"),
    ]
    for head_size, group in ((cases.HEAD_SIZE, single), (41, single[:1]), (64, single[-2:])):
        cases.HEAD_SIZE = head_size
        cases.truth.cache_clear()
        for case in group:
            torch._dynamo.reset()
            machine.check(cases, flex, case, f"heads of {head_size}")
    torch._dynamo.reset()
    for lengths in ((140, 10), (150, 33), (131, 60)):
        machine.check(cases, flex, cases.Case(*lengths, cases.TRANSFORMER_XL, "causal"), "lengths that change")
    assert machine.num_programs <= machine.num_checked * 2


class Machine:
    """What stands in for a GPU: takes torch's programs for it and runs their kernels on the CPU."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.num_programs = self.num_checked = 0

    def check(self, cases: Any, flex: Any, case: Any, what: str) -> None:
        cases.assert_like_the_reference(flex.attention, case)
        self.num_checked += 1
        print(f"{what}, {case}: values and gradients are those of the reference", flush=True)

    def backend(self, graph: Any, inputs: Any) -> Any:
        """Compile as `torch.compile` does, but for this machine."""
        from torch._inductor.compile_fx import compile_fx

        return compile_fx(graph, inputs, inner_compile=self.compiled)

    def compiled(self, graph: Any, inputs: Any, **settings: Any) -> Callable[[Any], Any]:
        """Return what runs one graph: its program, with kernels that are interpreted."""
        from torch._subclasses.fake_tensor import unset_fake_temporarily

        with unset_fake_temporarily(), pretending():
            program = program_for_cuda(graph, inputs, settings.get("is_backward", False))
        self.num_programs += 1
        for old, new in (
            ("AsyncCompile()", "kernels"),
            ("from torch._C import _cuda_getCurrentRawStream as get_raw_stream", "get_raw_stream = lambda device: 0"),
            ("torch._C._dynamo.guards._empty_strided_cuda", "unwritten"),
            ("with torch.cuda._DeviceGuard(0):", "if True:"),
            ("torch.cuda.set_device(0)", "pass"),
        ):
            assert old in program, f"torch's programs no longer have {old!r}"
            program = program.replace(old, new)
        kernels = types.SimpleNamespace(triton=self.kernel, wait=lambda scope: None)
        scope: dict[str, Any] = {"kernels": kernels, "unwritten": unwritten, "__name__": "program"}
        exec(compile(program, "program", "exec"), scope)

        def call(arguments: Any) -> Any:
            return scope["call"](list(arguments))

        call._boxed_call = True  # type: ignore[attr-defined]
        return call

    def kernel(self, name: str, source: str, device_str: str) -> Any:
        """Return a kernel of a program, whose `run` launches it on the CPU."""
        number = sum(1 for _ in self.out.glob("*.kernel"))
        path = self.out / f"{number:03}_{name}.kernel"
        path.write_text(source, encoding="utf-8")
        # The interpreter has no device library; Triton's own functions compute the same.
        function = function_of(path, source.replace("libdevice.", "tl.math."))
        names = list(inspect.signature(function.fn).parameters)

        def run(*arguments: Any, stream: int) -> None:
            if "triton_heuristics.template" in source:
                function[arguments[len(names) :]](*arguments[: len(names)])
                return
            blocks = {each: size for each, size in BLOCK_SIZES.items() if each in names}
            given = dict(zip((each for each in names if each not in blocks), arguments, strict=True))
            sizes = (
                (given.get("xnumel", 1), blocks.get("XBLOCK", 1)),
                (given.get("ynumel", 1), blocks.get("YBLOCK", 1)),
            )
            function[(*(-(-number // block) for number, block in sizes), 1)](**given, **blocks)

        return types.SimpleNamespace(run=run)


def unwritten(size: Any, stride: Any, dtype: Any) -> Any:
    """Memory whose every number is wrong until it is written."""
    import torch

    return torch.empty_strided(size, stride, dtype=dtype).fill_(float("nan") if dtype.is_floating_point else 77)


def program_for_cuda(graph: Any, inputs: Any, is_backward: bool) -> str:
    """Return torch's program for a graph on CUDA."""
    import torch
    from torch._guards import TracingContext, tracing
    from torch._inductor.compile_fx import compile_fx_inner
    from torch._inductor.graph import GraphLowering
    from torch._inductor.virtualized import V
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils._pytree import tree_map_only

    environments = [x.fake_mode.shape_env for x in inputs if isinstance(x, torch.Tensor)]
    mode = FakeTensorMode(shape_env=environments[0], allow_non_fake_inputs=True)

    def on_cuda(tree: Any) -> Any:
        with mode:
            return tree_map_only(
                torch.Tensor,
                lambda x: torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="cuda"),
                tree,
            )

    for module in graph.modules():
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            if "device" in node.kwargs:
                node.kwargs = {**node.kwargs, "device": torch.device("cuda", 0)}
            if "val" in node.meta:
                node.meta["val"] = on_cuda(node.meta["val"])
    graph.recompile()

    programs: list[str] = []
    codegen = GraphLowering.codegen

    def keep_program(lowering: Any) -> Any:
        programs.append(codegen(lowering)[0].value)
        raise StopIteration

    with (
        V.set_fake_mode(mode),
        tracing(TracingContext(mode)),
        mock.patch.object(GraphLowering, "codegen", keep_program),
    ):
        try:
            compile_fx_inner(graph, on_cuda(inputs), is_backward=is_backward)
        except Exception:
            if not programs:
                raise
    return programs[0]


@contextlib.contextmanager
def pretending() -> Iterator[None]:
    """Let torch and Triton believe that there is an H100."""
    import torch
    import triton
    from torch._inductor import scheduler
    from torch._inductor.runtime import triton_helpers
    from triton.backends.compiler import GPUTarget

    properties = types.SimpleNamespace(
        name="NVIDIA H100", major=9, minor=0, multi_processor_count=132, warp_size=32, total_memory=80 * 2**30,
        max_threads_per_multi_processor=2048, regs_per_multiprocessor=65_536, shared_memory_per_block=49_152,
        shared_memory_per_block_optin=SHARED_MEMORY[90], L2_cache_size=50 * 2**20, gcnArchName="",
    )  # fmt: skip
    driver = types.SimpleNamespace(
        get_current_target=lambda: GPUTarget("cuda", 90, 32), get_current_device=lambda: 0, is_active=lambda: True
    )
    replacements: list[tuple[Any, str, Any]] = [
        (torch.cuda, "is_available", lambda: True),
        (torch.cuda, "device_count", lambda: 1),
        (torch.cuda, "current_device", lambda: 0),
        (torch.cuda, "get_device_properties", lambda *device: properties),
        (torch.cuda, "_get_device_properties", lambda *device: properties),
        (torch.cuda, "get_device_capability", lambda *device: (9, 0)),
        (torch.cuda, "get_rng_state", lambda *device: torch.zeros(16, dtype=torch.uint8)),
        (torch.cuda, "set_rng_state", lambda *state: None),
        (torch.cuda, "synchronize", lambda *device: None),
        (torch.cuda, "_lazy_init", lambda: None),
        (torch.cuda, "_exchange_device", lambda device: 0),
        (torch.cuda, "_maybe_exchange_device", lambda device: 0),
        (torch.version, "cuda", "12.8"),
        (scheduler, "has_triton", lambda *device: True),
        (triton_helpers, "set_driver_to_gpu", lambda: None),
        # It copies numbers that nobody looks at, which a build without CUDA refuses.
        (
            sys.modules["torch._higher_order_ops.flex_attention"],
            "_permute_strides",
            lambda x, strides: x.new_empty_strided(x.shape, strides),
        ),
    ]
    triton.runtime.driver.set_active(driver)
    with contextlib.ExitStack() as stack:
        for owner, name, replacement in replacements:
            stack.enter_context(mock.patch.object(owner, name, replacement, create=True))
        yield


def function_of(path: Path, source: str) -> Any:
    """Return the Triton function of a kernel's source."""
    module_path = path.with_suffix(".py")
    module_path.write_text(IMPORTS + source[source.index("@triton.jit") :], encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, module_path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, path.stem.partition("_")[2])


def compile_kernels(out: Path) -> None:
    """Compiles every kernel that was run to machine code, and holds it to the shared memory of each GPU."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    largest = dict.fromkeys(SHARED_MEMORY, 0)
    paths = sorted(out.glob("*.kernel"))
    for path in paths:
        source = path.read_text(encoding="utf-8")
        found = re.search(r"'signature': (\{[^}]*\})", source)
        assert found
        signature = ast.literal_eval(found.group(1))
        constants = {name: BLOCK_SIZES[name] for name, kind in signature.items() if kind == "constexpr"}
        options = {name: int(number) for name, number in re.findall(r"\b(num_stages|num_warps)=(\d+)", source)}
        for capability, limit in SHARED_MEMORY.items():
            kernel = triton.compile(
                ASTSource(function_of(path, source), signature, constexprs=constants),
                target=GPUTarget("cuda", capability, 32),
                options=options,
            )
            assert kernel.asm["cubin"]
            assert kernel.metadata.shared <= limit, f"{path.name} needs {kernel.metadata.shared} bytes"
            largest[capability] = max(largest[capability], kernel.metadata.shared)
    for capability, size in largest.items():
        print(f"{len(paths)} kernels compiled for sm_{capability}, with at most {size:,} bytes of shared memory")


if __name__ == "__main__":
    main()
