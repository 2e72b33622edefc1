"""Models: families of networks.

A part offers
  Config                                    its options
  DEFAULTS                                  recipe keys to values that suit the family: {"train.epochs": 20, "optimizer": {...}}
  TAKES                                     kinds of input it accepts: a subset of ("numbers", "categories", "image", "tokens", "frames",
                                            "series")
  GIVES (optional)                          which forms of OutputSpec it can give, a subset of ("row", "token", "step", "moment", "frame",
                                            "image"); ("row",) where it does not say
  build(config, inputs, output) -> Module   `inputs` maps a name to danlu.terms.InputSpec, `output` is danlu.terms.OutputSpec.
                                            forward(inputs: dict[str, Tensor]) -> Tensor float32, (B, output.size) or as danlu.terms.OutputSpec
                                            says; any B >= 1. Tokens and frames may be of any length in a batch; what stands after a
                                            row's end changes nothing of its outputs
A part whose layers may be wider or narrower by one number may offer further
  width_of(config) -> int                   that number; 0 where the options leave none
  at_width(config, width) -> Config         the same network at another one. Options parametrization ("standard", "mup"), base_width, and
                                            base_layers where blocks add to a stream; see danlu/layers/parametrization.py
A part that begins with weights learnt elsewhere may offer further
  adapt(config, data) -> Data               the recipe's data section with what the model knows better: the tokenizer that it reads
                                            with, the size of its images. Before the task's own `adapt`
  adapt_task(config, task: Part) -> Part    the recipe's task likewise: the tokenizer of what is written
  begin(config, module) -> (digest, notice, fresh)   puts the weights into a module that `build` made: the SHA-256 of what was read, a
                                            sentence for the reader, the names of the tensors that were drawn anew
  settled(config) -> Config                 the options as an artifact keeps them: `build` needs nothing outside of them any more
A module that holds several networks that answer together may say so by an attribute `members`: forward then gives (B * members, size) in
training mode, the members of a row side by side, each learning by itself, and in evaluation mode (B, size), their mean
(danlu/layers/averaging.py).
A model that generates (language models, sequence to sequence) may offer further
  forward(inputs) in evaluation mode stays as above; `module.cache(batch, length)` and `module.extend(tokens, cache)`: see
  danlu/layers/generation/kv_cache.py
A model for adversarial training (task image_generation) offers further
  generator, discriminator                  modules that hold the weights of each side
  draw(count) -> noise                      from torch's own generator, which the update seeded
  imagine(inputs, noise) -> images          as forward, of this noise; forward takes its own from the input "row"
  judge(images, inputs) -> logits (B,)
Weights are drawn from torch's default generator, which the caller seeded. Import torch inside build, not at the top of the file, so that
a recipe is checked in well under a second; modules with a forward of their own stand in danlu/layers/.
"""
