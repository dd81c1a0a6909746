"""Which native modules are built, and how? All else about the package is in pyproject.toml."""

from glob import glob

from setuptools import Extension, setup

HOP = "rpc/hop/native"
KERNELS = "moe_model/kernels/cpu/native"


def files(pattern: str) -> list[str]:
    return sorted(glob(pattern))


# Optional: without a compiler the package installs all the same, and is slower.
setup(
    ext_modules=[
        Extension(
            "rpc.hop._hop",
            files(f"{HOP}/*.c"),
            depends=files(f"{HOP}/*.h"),
            extra_compile_args=["-O3"],
            optional=True,
        ),
        # One build holds the code of every instruction set; it is chosen at run time.
        Extension(
            "moe_model.kernels.cpu._kernels",
            files(f"{KERNELS}/*.cpp"),
            depends=files(f"{KERNELS}/*.h"),
            extra_compile_args=[
                "-std=c++17",
                "-O3",
                # Whether the compiler fuses a * b + c would decide over a row's last bits.
                "-ffp-contract=off",
                "-fvisibility=hidden",
                "-pthread",
                "-Wno-maybe-uninitialized",  # what gcc 12 says of its own AVX-512 headers
            ],
            extra_link_args=["-pthread"],
            optional=True,
        ),
    ]
)
