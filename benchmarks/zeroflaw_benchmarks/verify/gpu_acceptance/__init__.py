"""GPU acceptance: one command that turns "unverified" into "verified on <GPU>".

python -m zeroflaw_benchmarks.verify.gpu_acceptance BUNDLE --out report.json
"""
