"""Models: families of networks.

A part offers
  Config       its options, a danlu.recipe.Options
  TAKES        the kinds of input it accepts
  build(config, inputs, output) -> torch.nn.Module
  GIVES, DEFAULTS, width_of, at_width, adapt, adapt_task, begin, settled (optional)
               see danlu.parts.models._base.ModelFacts, which says what each is

`inputs` maps a name to danlu.terms.InputSpec, `output` is a danlu.terms.OutputSpec.
forward(inputs: dict[str, Tensor]) -> Tensor returns float32 (B, output.size), or the shape that
OutputSpec says, for any B >= 1. Tokens and frames may have any length in a batch; what is behind a
row's end must not change its outputs.

Some modules do more, and say so by a base class or by methods:
  several networks that answer together    danlu.layers.averaging.Ensemble
  generation token by token                danlu.layers.generation.kv_cache
  adversarial training (image_generation)  danlu.training.step.adversarial

Weights are drawn from torch's default generator, which the caller seeded. Import torch inside
`build`, not at the top of the file, so that a recipe is checked in well under a second; modules
with a forward of their own go to danlu/layers/, or to a file with a leading underscore here where
one family alone uses them.
"""
