package suit

import (
	"slices"

	"github.com/writ-project/writ/internal/image"
)

// A manifest is a program. To say what it would install, it is run here on every
// device it could meet: identifiers match, and a slot is any slot. Where
// try-each chooses by the slot, the ways through the manifest part; each is a
// world. No image is fetched, and nothing is believed that a condition on the
// device would not also check.

// world is one way through a manifest.
type world struct {
	comps   []state
	current []int // indices of the components that commands apply to
}

// state is what is known of a component at one point of a world. Its pointers
// are never written through.
type state struct {
	vendor, class, device string
	digest                *digest
	size, slot            *uint64
	uri                   string
	source                *uint64
	content               bool
	// inSlot is the slot that a condition found the component in.
	inSlot *uint64
}

// imageRef is an image that a condition compares with its digest.
type imageRef struct {
	component int
	slot      *uint64
	digest    digest
	size      *uint64
	uris      []string
}

func (w world) clone() world {
	return world{slices.Clone(w.comps), slices.Clone(w.current)}
}

func clones(ws []world) []world {
	out := make([]world, len(ws))
	for i, w := range ws {
		out[i] = w.clone()
	}
	return out
}

// runner runs command sequences and notes in m what they check. After the first
// error it does nothing.
type runner struct {
	m        *manifest
	shared   bool // in the shared sequence, which changes nothing on the device
	commands int
	err      error
}

// run returns the worlds that are left after the sequence b; ws stays as it is.
func (r *runner) run(where string, b []byte, ws []world, depth int) []world {
	d := newDecoder(where, b)
	n := d.list(2, 2*maxCommands)
	switch {
	case n%2 != 0:
		d.fail("%d items, want pairs of command and argument", n)
	case depth > maxDepth:
		d.fail("sequences are nested deeper than %d", maxDepth)
	}
	ws = clones(ws)
	for range n / 2 {
		if r.commands++; r.commands > maxCommands {
			d.refuse(image.ErrTooLarge, "there are more than %d commands", maxCommands)
		}
		if d.err != nil || r.err != nil {
			break
		}
		ws = r.command(where, d, ws, depth)
		if len(ws) > maxWorlds {
			d.refuse(image.ErrTooLarge, "there are more than %d ways through it", maxWorlds)
		}
	}
	if err := d.done(); r.err == nil {
		r.err = err
	}
	if r.err != nil {
		return nil
	}
	return ws
}

func (r *runner) command(where string, d *decoder, ws []world, depth int) []world {
	switch code := d.int(); code {
	case dirSetIndex:
		list := r.indices(d)
		for i := range ws {
			ws[i].current = list
		}
	case dirOverride:
		r.override(d, ws)
	case dirTryEach:
		var branches [][]byte
		// At least one sequence, and another or null, for "or do nothing".
		for n := d.list(2, maxWorlds); n > 0 && d.err == nil; n-- {
			if d.next() != majorSimple {
				branches = append(branches, d.bytes())
				continue
			}
			if v := d.simple(); d.err == nil && (v != simpleNull || n != 1) {
				d.fail("only the last sequence to try may be missing, as null")
			}
			branches = append(branches, nil)
		}
		if d.err == nil {
			return r.each(ws, func(in []world) (out []world) {
				for _, b := range branches {
					if b == nil {
						out = append(out, clones(in)...)
					} else {
						out = append(out, r.run(where, b, in, depth+1)...)
					}
				}
				return out
			})
		}
	case dirRun:
		if b := d.bytes(); d.err == nil {
			return r.each(ws, func(in []world) []world { return r.run(where, b, in, depth+1) })
		}
	default:
		if policy := d.uint(); d.err == nil && policy > maxReportFlags {
			d.fail("reporting policy is %d", policy)
		}
		if code == condAbort {
			return nil
		}
		return slices.DeleteFunc(ws, func(w world) bool {
			for _, i := range w.current {
				if !r.step(d, code, i, &w.comps[i]) {
					return true
				}
			}
			return false
		})
	}
	return ws
}

// each runs f for one component after the other when several are current, as the
// draft says of sequences within commands (section 6.5).
func (r *runner) each(ws []world, f func([]world) []world) []world {
	if len(ws) == 0 {
		return ws
	}
	// Worlds of one sequence share their indices: only set-index changes them,
	// and it does so in all.
	current := ws[0].current
	for _, i := range current {
		for j := range ws {
			ws[j].current = []int{i}
		}
		if ws = f(ws); len(ws) > maxWorlds {
			if r.err == nil {
				d := newDecoder("command sequences", nil)
				d.refuse(image.ErrTooLarge, "there are more than %d ways through them", maxWorlds)
				r.err = d.err
			}
			return nil
		}
	}
	for j := range ws {
		ws[j].current = current
	}
	return ws
}

// indices reads the argument of set-component-index: an index, several, or true
// for all.
func (r *runner) indices(d *decoder) []int {
	n := len(r.m.components)
	index := func() int {
		i := d.uint()
		if d.err == nil && i >= uint64(len(r.m.components)) {
			d.fail("component index %d, there are %d", i, n)
		}
		if d.err != nil {
			return 0
		}
		return int(i) //nolint:gosec // G115: below n
	}
	switch d.next() {
	case majorSimple:
		if all := d.bool(); d.err == nil && !all {
			d.fail("component index is false")
		}
		list := make([]int, n)
		for i := range list {
			list[i] = i
		}
		return list
	case majorArray:
		var list []int
		for range d.list(1, maxComponents) {
			i := index()
			if d.err == nil && slices.Contains(list, i) {
				d.fail("component index %d is there twice", i)
			}
			list = append(list, i)
		}
		return list
	default:
		return []int{index()}
	}
}

// override sets parameters of the current components.
func (r *runner) override(d *decoder, ws []world) {
	set := func(f func(*state)) {
		for _, w := range ws {
			for _, i := range w.current {
				f(&w.comps[i])
			}
		}
	}
	count := 0
	d.entries(func() {
		count++
		switch key := d.int(); key {
		case paramVendor:
			v := d.id()
			set(func(s *state) { s.vendor = v })
		case paramClass:
			v := d.id()
			set(func(s *state) { s.class = v })
		case paramDevice:
			v := d.id()
			set(func(s *state) { s.device = v })
		case paramDigest:
			inner := newDecoder("image digest", d.bytes())
			v := inner.digest()
			if err := inner.done(); d.err == nil {
				d.err = err
			}
			set(func(s *state) { s.digest = &v })
		case paramSize:
			v := d.uint()
			set(func(s *state) { s.size = &v })
		case paramSlot:
			v := d.uint()
			set(func(s *state) { s.slot = &v })
		case paramURI:
			v := d.text(maxText)
			set(func(s *state) { s.uri = v })
		case paramSource:
			v := d.uint()
			if d.err == nil && v >= uint64(len(r.m.components)) {
				d.fail("source component %d, there are %d", v, len(r.m.components))
			}
			set(func(s *state) { s.source = &v })
		case paramContent:
			d.bytes()
			set(func(s *state) { s.content = true })
		case paramInvokeArgs:
			d.bytes()
		case paramStrictOrder, paramSoftFailure:
			d.bool()
		default:
			d.refuse(image.ErrUnsupported, "parameter %d is unknown", key)
		}
	})
	if d.err == nil && count == 0 {
		d.fail("no parameters are set")
	}
}

// step runs a condition or directive on component i and reports whether the
// world goes on. A command whose parameters are not set could not work on any
// device, so it is an error.
func (r *runner) step(d *decoder, code int64, i int, s *state) bool {
	need := func(ok bool, what string) {
		if !ok {
			d.fail("command %d on component %d needs a %s, which is not set", code, i, what)
		}
	}
	if r.shared && code >= dirWrite && code != condDevice {
		d.fail("command %d has no place in the shared sequence", code)
	}
	switch code {
	case condVendor:
		need(s.vendor != "", "vendor id")
		r.m.vendors = appendNew(r.m.vendors, s.vendor)
	case condClass:
		need(s.class != "", "class id")
		r.m.classes = appendNew(r.m.classes, s.class)
	case condDevice:
		need(s.device != "", "device id")
		r.m.devices = appendNew(r.m.devices, s.device)
	case condSlot:
		need(s.slot != nil, "slot")
		switch {
		case s.slot == nil:
			return false
		case s.inSlot == nil:
			s.inSlot = s.slot
		case *s.inSlot != *s.slot:
			return false
		}
	case condImageMatch:
		need(s.digest != nil, "digest")
		if s.digest != nil {
			r.m.note(i, s)
		}
	case condCheckContent, dirWrite:
		need(s.content, "content")
	case dirFetch:
		need(s.uri != "", "URI")
	case dirCopy, dirSwap:
		need(s.source != nil, "source component")
	case dirInvoke:
	default:
		d.refuse(image.ErrUnsupported, "command %d is unknown", code)
	}
	return true
}

// note records that component i is compared with its digest. One image is
// usually compared more than once: when it is fetched, and again when it is
// validated, where its URI is not set.
func (m *manifest) note(i int, s *state) {
	at := slices.IndexFunc(m.images, func(r imageRef) bool {
		return r.component == i && r.digest == *s.digest && same(r.size, s.size) && same(r.slot, s.inSlot)
	})
	if at < 0 {
		at = len(m.images)
		m.images = append(m.images, imageRef{component: i, slot: s.inSlot, digest: *s.digest, size: s.size})
	}
	if s.uri != "" {
		m.images[at].uris = appendNew(m.images[at].uris, s.uri)
	}
}

func same(a, b *uint64) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}
