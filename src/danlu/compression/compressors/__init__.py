"""Compressors: a trained model made smaller or faster, with the same call.

A part offers
  Config                                    its options
  compress(config, subject) -> state        changes `subject.module` in place (or puts another there) and returns what `replay` needs to do
                                            the same to a freshly built module, as JSON values: names of layers, shapes; never weights
  replay(config, state, module)             the same change of the module tree (in place) before weights are read. `state` comes from a file:
                                            what does not fit the module raises ValueError, KeyError, TypeError or AttributeError, and
                                            nothing in it makes a tensor larger than what the module holds
  TRAINS (optional)                         True where it trains; such a part has an option `epochs`
  ROUNDS (optional)                         True where numbers are rounded while the model answers: another runtime then rounds some of them to
                                            the neighbour, and an export is proven by its score
  NEEDS_STUDENT (optional)                  True where the result is another recipe's model: nothing is replayed, what stood before it is
                                            only told
`subject` (danlu.compression.compress.Subject) holds
  module, family                            the model in evaluation mode, float32 on the CPU, and its family's name for messages
  rows(count) -> list[dict]                 inputs of at most `count` training rows, in batches; the same ones at every call
  output                                    danlu.terms.OutputSpec
  train(module, close, ...) -> module       the recipe's own training of a module, by the ordinary loop; `close(module)` makes of it what is
                                            released
  teach(...)                                another recipe's training by a teacher (distil)
  told                                      list of sentences for the reader: what was left as it is, and why
A part that finds nothing it could change raises PartError, which names the family and the reason. What is kept is tensors with names, in
parameters and buffers of the module: weights.safetensors holds them as they are (int8 as int8). state["stored"], {tensor: "int8"}, names
tensors of float32 that hold no more than 8 bits an output and are written so; tensors that are mostly zeros are always written as a
bitmap and the rest.
Layers with a forward of their own stand in danlu/layers/.
"""
