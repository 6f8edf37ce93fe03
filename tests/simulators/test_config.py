import msgspec
import pytest

from simulators.config import SimulationConfig, TransientConfig

CASES = [
    ({"camera": {"nz": 4}}, "unknown field `nz`"),
    ({"conditions": {"fwhm_eff": -0.8}}, "> 0"),
    ({"conditions": {"sky_mag": {"q": 20.0}}}, "Invalid enum value 'q'"),
    ({"cadence": {"blocks": ["rq"]}}, "matching regex"),
    ({"cadence": {"blocks": []}}, "length >= 1"),
    ({"sky": {"transients": {"flux": "loud"}}}, "Invalid enum value 'loud'"),
    ({"sky": {"transients": {"snr": [50.0, 3.0]}}}, "snr must be .low, high., got"),
    ({"artifacts": {"streaks": 1.5}}, "<= 1"),
    ({"sky": {"stars": {"density": float("inf")}}}, "density must be finite, got inf"),
]


@pytest.mark.parametrize(("section", "message"), CASES)
def test_a_wrong_scenario_is_refused_with_its_key(section: dict[str, object], message: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.convert(section, SimulationConfig)


def test_an_empty_scenario_is_the_default() -> None:
    assert msgspec.convert({}, SimulationConfig) == SimulationConfig()
    assert msgspec.toml.decode(b'[sky.transients]\nflux = "snr_log"', type=SimulationConfig) == SimulationConfig(
        sky=msgspec.structs.replace(SimulationConfig().sky, transients=TransientConfig(flux="snr_log")))
