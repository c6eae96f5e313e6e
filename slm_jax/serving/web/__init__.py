"""A page to talk to a system, and a socket that speaks the events of OpenAI's Realtime API. Needs aiohttp.

Site        routes, origins, the server in a thread of its own    (`serving.web.site`)
Connection  one client: limits, reading, writing, its end         (`serving.web.connection`)
Talks       what events mean, whatever the system                 (`serving.web.talk`)
            to a session: an open microphone                      (`serving.web.open_talk`)
            to a system that answers: push to talk                (`serving.web.turn_talk`)
Answer      the events of one response                            (`serving.web.answer`)
Events      read and refused; items, the session                  (`serving.web.events`, `serving.web.settings`)
Sound       base64 of 16-bit samples at 24 kHz                    (`serving.web.sound`)
Loopback    what the socket itself costs                          (`serving.web.loopback`)
Limits      how many, how long, how large, how quick              (`serving.web.limits`)
"""
