"""The router's side: small Mixture-of-Experts language models, trained and traced.

How the router is built and trained decides who talks to whom. The models here are small enough to
be trained on a CPU in minutes; what their routers choose is captured as a routing trace, and that
is placed and priced like any other.
"""
