"""What setup.cfg cannot say: the compiled loops of the re-ranker. Without a C compiler it is installed without them."""

import runpy

from setuptools import Extension, setup

SOURCES = runpy.run_path("reranker/compiled/digest.py")["of_sources"]()
HEADERS = ("arrays", "products", "asked", "terms", "ranking", "sources")

setup(
    ext_modules=[
        Extension(
            "reranker.compiled._kernel",
            ["reranker/compiled/_kernel.c"],
            depends=[f"reranker/compiled/{name}.h" for name in HEADERS],
            define_macros=[("SOURCES", f'"{SOURCES}"')],  # by which the kernel knows whether they are still the same
            extra_compile_args=["-O3", "-fno-math-errno", "-fno-trapping-math", "-Wall", "-Wno-psabi"],
            optional=True,
        )
    ]
)
