"""Contestants of benchmarks/serving.py: one file each.

A file offers
  NAME                    what the table calls it
  NEEDS                   libraries that must be installed
  STYLES                  name -> what it means; each is a row of the table
  PATH                    where requests are posted; the body is {"row": {"image": [[pixels] * 28] * 28}}
  probabilities(answer)   the ten numbers of an answer (parsed JSON), in the order of the classes
  main()                  run as `python -m servers.NAME ARTIFACT PORT STYLE`: listens on 127.0.0.1:PORT until SIGTERM. The model is
                          `danlu.load(ARTIFACT)`, and an answer what its `predict` gives for the row
"""
