"""Contestants of benchmarks/serving.py: one file each, which imports nothing of what it serves by (the load generator reads it too).

A file offers
  NAME                    what the table calls it
  REQUIRES                of a peer: what is installed into its own environment, beside torch, numpy and safetensors
  STYLES                  name -> what it means; each is a row of the table
  PATH                    where requests are posted
  prepare(artifact, folder, style)    where it serves something else than the artifact: the path of that
  body(image)             where it takes another body than {"row": {"image": [[pixels] * 28] * 28}}
  probabilities(answer)   the ten numbers of an answer (parsed JSON), in the order of the classes
  main()                  run as `python -m servers.NAME ARTIFACT PORT STYLE`: listens on 127.0.0.1:PORT until SIGTERM. An answer is what
                          `danlu.load(ARTIFACT).predict` gives for the row; a peer serves the weights by servers.apps.network
"""
