package verify

import "slices"

// kept is for how many seconds before its newest authorization a window
// remembers. The rules look back a minute; the rest is for a server's clock
// that was set back.
const kept = 60 + 3600

// window counts the authorizations of a campaign by the second they were given
// in, as the server counts them for the plan's rate limit: all at or after a
// time, those too whose time is still to come because the clock was set back.
// Its memory is bounded: the seconds of the last hour.
type window struct {
	seconds   []second // in order of at
	forgotten int64    // the newest second that was dropped
}

// second is how many authorizations were given in one second.
type second struct {
	at int64 // Unix seconds
	n  int
}

// add counts an authorization given at a time in Unix seconds.
func (w *window) add(at int64) {
	i := len(w.seconds)
	for i > 0 && w.seconds[i-1].at > at {
		i--
	}
	if i > 0 && w.seconds[i-1].at == at {
		w.seconds[i-1].n++
		return
	}
	w.seconds = slices.Insert(w.seconds, i, second{at, 1})
	old := w.seconds[len(w.seconds)-1].at - kept
	n := 0
	for w.seconds[n].at < old {
		w.forgotten = max(w.forgotten, w.seconds[n].at)
		n++
	}
	w.seconds = slices.Delete(w.seconds, 0, n)
}

// since counts the authorizations given at or after a time in Unix seconds;
// ok is false when some of them may be forgotten.
func (w *window) since(at int64) (n int, ok bool) {
	for i := len(w.seconds) - 1; i >= 0 && w.seconds[i].at >= at; i-- {
		n += w.seconds[i].n
	}
	return n, at > w.forgotten
}
