from ppd_core.policy.distrust import Distrust
from ppd_proxy.config.config import Config
from ppd_proxy.runtime.runtime import Runtime
from ppd_wire.metrics.scraped import EngineFigures

URL = "http://10.0.0.2:8200"


async def test_an_engine_that_leaves_takes_with_it_what_was_known_of_it():
    runtime = Runtime(Config())
    shared = runtime.shared
    shared.fleet_changed(shared.fleet.add_static(URL, "decode", 0.0))
    (engine,) = shared.fleet.engines()
    shared.readings.scraped(engine, EngineFigures(running=1), 1.0)
    shared.fleet_changed(shared.fleet.probed(engine.id, True, 2.0))
    assert shared.readings.latest() == {engine.id: EngineFigures(running=1)}
    shared.fleet_changed(shared.fleet.remove(engine.id))
    shared.fleet_changed(shared.fleet.add_static(URL, "decode", 3.0))
    assert shared.readings.latest() == {}
    await runtime.stop()


async def test_what_both_judges_distrust_is_joined():
    runtime = Runtime(Config())
    shared = runtime.shared
    shared.guarded = Distrust(is_split=True)
    assert not shared.distrust.is_split
    shared.join_distrust()
    assert shared.distrust.is_split
    await runtime.stop()
