"""Names of weights in a part with adapters, as peft really gives them."""

from core.policy.adapter_names import is_adapter, name_without_adapters
from core.policy.lora import add_adapters
from core.registry.part_settings import PartSettings
from plugins.text.sentencepiece import SentencePieceConfig, SentencePieceEncoder


def test_weights_have_their_former_names_beside_adapters():
    part = SentencePieceEncoder(SentencePieceConfig(width=16, layers=1))
    before = [name for name, _ in part.named_parameters()]
    add_adapters(part, PartSettings(train="lora"), "text_encoder")
    after = [name for name, _ in part.named_parameters()]
    assert [name_without_adapters(name) for name in after if not is_adapter(name)] == before
    assert {name for name, x in part.named_parameters() if x.requires_grad} == {
        name for name in after if is_adapter(name)
    }
