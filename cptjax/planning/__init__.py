"""What a run would be on devices that need not be here: its memory, its collectives, its time and its price.

hlo, collectives     what a compiled program sends to whom, read from its text
chips, topology      what a TPU can do at most, and which there are
compiling            the step of a run, compiled; the one module that needs libtpu, in a child process
estimate, warnings   what follows from that
candidates, searching  which meshes are worth compiling, and which of them is the best
described, plan_page  all of it as lines, plan.json and a page
"""
