"""The batch journey, one file per step: simulate, prepare, train, embed, retrieve, lists, evaluate, build."""
