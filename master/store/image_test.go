package store

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
)

// images makes, of what was written to a disk, what the disk may hold after a
// power cut: everything that was synced, and of the rest any part. Cuts must
// be asked for in rising order.
type images struct {
	ops   []op
	at    int // ops before it are taken in
	files map[uint64]*imageFile
	dirs  map[uint64]*imageDir
}

// imageFile is a file: what is surely there, and what was done since.
type imageFile struct {
	synced  []byte
	pending []op
}

// imageDir is the same for a directory.
type imageDir struct {
	synced  map[string]op
	pending []op
}

func newImages(ops []op) *images {
	return &images{ops: ops, files: map[uint64]*imageFile{}, dirs: map[uint64]*imageDir{rootIno: {synced: map[string]op{}}}}
}

func (m *images) file(ino uint64) *imageFile {
	if m.files[ino] == nil {
		m.files[ino] = &imageFile{}
	}
	return m.files[ino]
}

// advance takes in all before cut.
func (m *images) advance(cut int) {
	for ; m.at < cut; m.at++ {
		switch o := m.ops[m.at]; o.Kind {
		case opWrite, opSize:
			f := m.file(o.Inode)
			f.pending = append(f.pending, o)
		case opEntry:
			if o.IsDir {
				m.dirs[o.Inode] = &imageDir{synced: map[string]op{}}
			}
			d := m.dirs[o.Dir]
			d.pending = append(d.pending, o)
		case opSync:
			if d := m.dirs[o.Inode]; d != nil {
				for _, e := range d.pending {
					d.synced[e.Name] = e
				}
				d.pending = nil
				continue
			}
			f := m.file(o.Inode)
			f.synced, f.pending = f.content(func(int64) int { return len(f.pending) }, len(f.pending)), nil
		}
	}
}

const (
	page   = 4096
	sector = 512
)

// content is the file with the first size of the pending sizes and, of each
// sector, what the first upTo pending writes have made of it.
func (f *imageFile) content(upTo func(off int64) int, size int) []byte {
	length := int64(len(f.synced))
	for _, o := range f.pending[:size] {
		length = max(length, o.Off+int64(len(o.Data)))
	}
	b := make([]byte, length)
	copy(b, f.synced)
	for i, o := range f.pending {
		for begin := o.Off; begin < o.Off+int64(len(o.Data)); {
			end := min((begin/sector+1)*sector, o.Off+int64(len(o.Data)))
			if i < upTo(begin) && begin < length {
				copy(b[begin:], o.Data[begin-o.Off:end-o.Off])
			}
			begin = end
		}
	}
	return b
}

// fate decides what of some pending things has reached the disk.
type fate struct {
	r    *rand.Rand
	mode string
}

// fates: nothing that was not synced, all of it, in the order of writing up to
// some point, any pages, any sectors.
var fates = []string{"none", "all", "order", "pages", "sectors"}

func (f fate) some(n int) int { return f.r.IntN(n + 1) }

func (f fate) file(x *imageFile) []byte {
	n := len(x.pending)
	grain := int64(page)
	switch f.mode {
	case "none":
		return bytes.Clone(x.synced)
	case "all":
		return x.content(func(int64) int { return n }, n)
	case "order":
		k := f.some(n)
		return x.content(func(int64) int { return k }, k)
	case "sectors":
		grain = sector
	}
	// Most pages follow the crowd, so that also a single one that is missing,
	// or that alone is there, is often met.
	chosen, crowd, odd := map[int64]int{}, []int{0, n}[f.r.IntN(2)], 1+f.r.IntN(8)
	size := n
	if f.r.IntN(4) == 0 {
		size = f.some(n)
	}
	return x.content(func(off int64) int {
		k, ok := chosen[off/grain]
		if !ok {
			if k = crowd; f.r.IntN(odd) == 0 {
				k = f.some(n)
			}
			chosen[off/grain] = k
		}
		return k
	}, size)
}

func (f fate) entries(d *imageDir) map[string]op {
	out := maps.Clone(d.synced)
	n := len(d.pending)
	switch f.mode {
	case "none":
		n = 0
	case "order":
		n = f.some(n)
	}
	upTo := map[string]int{}
	for i, e := range d.pending[:n] {
		if f.mode == "pages" || f.mode == "sectors" {
			if _, ok := upTo[e.Name]; !ok {
				upTo[e.Name] = f.some(n)
			}
			if i >= upTo[e.Name] {
				continue
			}
		}
		out[e.Name] = e
	}
	return out
}

// write makes an image of a cut below dir.
func (m *images) write(dir string, cut int, f fate) error {
	m.advance(cut)
	written := map[uint64]string{} // where a file is that has two names
	var walk func(ino uint64, dir string) error
	walk = func(ino uint64, dir string) error {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
		names := f.entries(m.dirs[ino])
		for _, name := range slices.Sorted(maps.Keys(names)) {
			e := names[name]
			path := filepath.Join(dir, name)
			if e.Inode == 0 {
				continue
			}
			if m.dirs[e.Inode] != nil {
				if err := walk(e.Inode, path); err != nil {
					return err
				}
				continue
			}
			if first := written[e.Inode]; first != "" {
				if err := os.Link(first, path); err != nil {
					return err
				}
				continue
			}
			written[e.Inode] = path
			if err := os.WriteFile(path, f.file(m.file(e.Inode)), 0o600); err != nil {
				return err
			}
		}
		return nil
	}
	return walk(rootIno, dir)
}

// cut is a place in the history and what becomes there of what is not synced.
type cut struct {
	at   int
	mode string
	seed uint64
}

func (c cut) String() string { return fmt.Sprintf("cut %d, %s, seed %d", c.at, c.mode, c.seed) }

// cuts are n of them in rising order: before and after every sync with nothing
// and with all of the rest, as far as n allows, and others at random.
func cuts(ops []op, n int, seed uint64) []cut {
	r := rand.New(rand.NewPCG(seed, 1))
	var out []cut
	for i, o := range ops {
		if o.Kind == opSync {
			out = append(out, cut{at: i, mode: "none"}, cut{at: i, mode: "all"}, cut{at: i + 1, mode: "none"})
		}
	}
	if len(out) > n {
		r.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
		out = out[:n]
	}
	for len(out) < n {
		out = append(out, cut{at: r.IntN(len(ops) + 1), mode: fates[r.IntN(len(fates))]})
	}
	slices.SortStableFunc(out, func(a, b cut) int { return a.at - b.at })
	for i := range out {
		out[i].seed = seed + uint64(i)
	}
	return out
}
