"""The program of rayjob.yaml: replace it by yours. On a Ray cluster, ours is joined by itself."""

import agentic_ray as ar

total = ar.map_reduce(lambda x: x * x, range(1_000_000), lambda a, b: a + b)
assert total == sum(x * x for x in range(1_000_000)), total
print(ar.cluster())
print("the sum of the squares is", total)
