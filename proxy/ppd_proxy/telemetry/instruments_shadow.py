"""The metrics of accuracy shadowing: samples of live requests, checked against an unsplit engine."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from ppd_accuracy.verdicts.verdicts import VERDICTS
from ppd_proxy.telemetry.instrument import Instrument

# Nearly every answer is 1; what matters is how far below the others are.
_ACCURACY_BUCKETS = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 0.9999, 1)
# In nats. Kernels and batch shapes alone differ by up to some hundredths, wrong KV by whole nats.
_DELTA_BUCKETS = (0.0001, 0.001, 0.003, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 5, 10, 20)
_TOKEN_BUCKETS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
_ROUTE: Mapping[str, str] = MappingProxyType({"route": "`pd` or `direct`"})

SAMPLES = Instrument(
    name="ppd_shadow_samples_total",
    kind="counter",
    group="shadow",
    labels=("route", "outcome"),
    label_values=_ROUTE,
    help="Sampled requests that were judged, by what came out.",
)
DROPPED = Instrument(
    name="ppd_shadow_dropped_total",
    kind="counter",
    group="shadow",
    labels=("reason",),
    help="Samples that were not judged, or not written to the journal, by why.",
)
TOKEN_ACCURACY = Instrument(
    name="ppd_shadow_token_accuracy",
    kind="histogram",
    group="shadow",
    labels=("route",),
    label_values=_ROUTE,
    buckets=_ACCURACY_BUCKETS,
    help="Share of an answer's tokens that the baseline engine finds right, 0 to 1.",
)
LOGPROB_DELTA = Instrument(
    name="ppd_shadow_logprob_delta",
    kind="histogram",
    group="shadow",
    labels=("route",),
    unit="nats",
    label_values=_ROUTE,
    buckets=_DELTA_BUCKETS,
    help="Largest difference between the answering engine's and the baseline's log probability of a token of the "
    "answer; not a number counts as 100.",
)
FIRST_DIVERGENCE = Instrument(
    name="ppd_shadow_first_divergence_tokens",
    kind="histogram",
    group="shadow",
    labels=("route",),
    unit="tokens",
    label_values=_ROUTE,
    buckets=_TOKEN_BUCKETS,
    help="Tokens before the first one that the baseline's own answer has otherwise; only answers that differ.",
)
LENGTH_DELTA = Instrument(
    name="ppd_shadow_length_delta_tokens",
    kind="histogram",
    group="shadow",
    labels=("route",),
    unit="tokens",
    label_values=_ROUTE,
    buckets=_TOKEN_BUCKETS,
    help="By how many tokens an answer is longer or shorter than the baseline's own.",
)
NOISE_DELTA = Instrument(
    name="ppd_shadow_noise_logprob_delta",
    kind="histogram",
    group="shadow",
    unit="nats",
    buckets=_DELTA_BUCKETS,
    help="The same largest difference where the baseline is compared with itself: what no handoff is to blame for.",
)
VERDICT = Instrument(
    name="ppd_shadow_verdict",
    kind="gauge",
    group="shadow",
    labels=("scope", "verdict"),
    label_values=MappingProxyType(
        {
            "scope": "`all`, `route:pd`, `route:direct` or `pair:P>D`",
            "verdict": ", ".join(f"`{verdict}`" for verdict in VERDICTS[:-1]) + f" or `{VERDICTS[-1]}`",
        }
    ),
    help="1 for the verdict in force in a scope, 0 for the others; absent while nothing is sampled.",
)
GUARD_ACTIONS = Instrument(
    name="ppd_guard_actions_total",
    kind="counter",
    group="shadow",
    labels=("action",),
    help="What the guard did about red verdicts, or undid.",
)

INSTRUMENTS = tuple(each for each in globals().values() if isinstance(each, Instrument))
"""All that are named above, in their order."""
