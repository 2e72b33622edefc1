"""Models: families of networks.

A part offers
  Config                                    its options
  DEFAULTS                                  recipe keys to values that suit the family: {"train.epochs": 20, "optimizer": {...}}
  TAKES                                     kinds of input it accepts: a subset of ("numbers", "categories", "image")
  build(config, inputs, output) -> Module   `inputs` maps a name to danlu.terms.Input, `output` is danlu.terms.Output.
                                            forward(inputs: dict[str, Tensor]) -> Tensor float32 (B, output.size); any B >= 1
Weights are drawn from torch's default generator, which the caller seeded. Import torch inside build, not at the top of the file, so that
a recipe is checked in well under a second; modules with a forward of their own stand in danlu/layers/.
"""
