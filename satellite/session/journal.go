package session

import (
	"cmp"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"time"
)

// journal is what survives a restart of the satellite program: one file for
// each session, the highest epoch obeyed, the lease. Files are replaced as a
// whole, so that a crash leaves the old one or the new one.
type journal struct{ dir string }

func (j journal) sessions() string { return filepath.Join(j.dir, "sessions") }

func (j journal) open() error {
	if err := os.MkdirAll(j.sessions(), 0o700); err != nil {
		return fmt.Errorf("journal of the sessions: %w; the satellite needs a directory of its own there (WIN4_STATE_DIR)", err)
	}
	return nil
}

// identity names this journal: random, made with the directory. Whoever has
// another one knows nothing of the sessions in this one.
func (j journal) identity() (string, error) {
	path := filepath.Join(j.dir, "id")
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		b = []byte(rand.Text())
		err = replace(path, b, true)
	}
	if err != nil {
		return "", fmt.Errorf("name of the journal: %w", err)
	}
	if id := strings.TrimSpace(string(b)); id != "" && len(id) <= 64 {
		return id, nil
	}
	return "", fmt.Errorf("name of the journal: %s does not hold one; put the file back, or remove it, forget this server on the master and let it register anew", path)
}

func (j journal) path(id string) string { return filepath.Join(j.sessions(), EntryFile(id)) }

func (j journal) put(e Entry) error {
	b, err := e.Encode()
	if err != nil {
		return err
	}
	if err := replace(j.path(e.Spec.Session), b, true); err != nil {
		return fmt.Errorf("journal of session %s: %w", e.Spec.Session, err)
	}
	return nil
}

func (j journal) remove(id string) error {
	err := os.Remove(j.path(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// all reads the entries. One that cannot be read stops the satellite: a desktop
// would run without anybody who knows.
func (j journal) all() ([]Entry, error) {
	out, err := j.read()
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Entries reads the journal of this name in the directory of a satellite, as
// somebody else than its Manager. With an error they are those that could be
// read; fs.ErrNotExist: there is none, or another.
func Entries(dir, name string) ([]Entry, error) {
	j := journal{dir}
	b, err := os.ReadFile(filepath.Join(dir, "id"))
	if err != nil {
		return nil, fmt.Errorf("name of the journal: %w", err)
	}
	if now := strings.TrimSpace(string(b)); now != name {
		return nil, fmt.Errorf("the journal in %s is %q, not %q: %w", dir, now, name, fs.ErrNotExist)
	}
	return j.read()
}

// JournalName names the journal in the directory of a satellite; one that is not
// there is made.
func JournalName(dir string) (string, error) {
	j := journal{dir}
	if err := j.open(); err != nil {
		return "", err
	}
	return j.identity()
}

// read reads the entries that can be read; the error is of the first that
// cannot.
func (j journal) read() (out []Entry, bad error) {
	files, err := os.ReadDir(j.sessions())
	if err != nil {
		return nil, fmt.Errorf("journal of the sessions: %w", err)
	}
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), ".json") {
			continue // a temporary file of a write that was cut off
		}
		path := filepath.Join(j.sessions(), f.Name())
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // the session has ended meanwhile
		}
		if err != nil {
			bad = cmp.Or(bad, fmt.Errorf("journal: %w", err))
			continue
		}
		e, err := DecodeEntry(f.Name(), b)
		if err != nil {
			bad = cmp.Or(bad, fmt.Errorf("journal %s: %w; make sure that no desktop of this session runs (its directory is in the file), then move the file away", path, err))
			continue
		}
		out = append(out, e)
	}
	sort.Slice(out, func(a, b int) bool { return out[a].Spec.Session < out[b].Spec.Session })
	return out, bad
}

func (j journal) epoch() (uint64, error) {
	path := filepath.Join(j.dir, "epoch")
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("epoch of the master: %w", err)
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("epoch of the master: %s does not hold a number; remove the file if the database of the master is sound", path)
	}
	return n, nil
}

func (j journal) setEpoch(n uint64) error {
	return replace(filepath.Join(j.dir, "epoch"), strconv.AppendUint(nil, n, 10), true)
}

// lease reads the lease; booted is the time since the computer started.
func (j journal) lease(booted time.Duration) (Lease, error) {
	path := filepath.Join(j.dir, "lease")
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Lease{}, nil
	}
	var l Lease
	if err == nil {
		l, err = DecodeLease(b, booted)
	}
	if err != nil {
		return l, fmt.Errorf("lease %s: %w", path, err)
	}
	return l, nil
}

// setLease is not synced: it must survive a crash of the program alone.
func (j journal) setLease(l Lease) error {
	b, err := json.Marshal(l)
	if err != nil {
		return err
	}
	return replace(filepath.Join(j.dir, "lease"), b, false)
}

// replace writes a file as a whole.
func replace(path string, data []byte, sync bool) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".tmp-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	_, err = f.Write(data)
	if err == nil && sync {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err == nil && sync {
		var d *os.File
		if d, err = os.Open(filepath.Dir(path)); err == nil {
			err = d.Sync()
			d.Close()
		}
	}
	return err
}
