"""How the halves of a pivot learn; every stage needs captions alone.

create         a language half and a vision half together, as a bridge aligns: this defines Z
add_vision     a vision half, as a bridge aligns whose language half is frozen
add_language   a language half, by regression of the slots that the first one fills; no vision model loads
"""
