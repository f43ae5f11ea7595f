"""The long-running controller: watches trigger, a queue serialises, passes do the work.

`run` wires it up, `controller` turns keys into passes, `queue` hands keys to threads, `places` caps the
trials of all jobs together, `watch` listens to the API server, `lease` elects one of several daemons, and
`http` and `metrics` tell the world how it goes.
"""
