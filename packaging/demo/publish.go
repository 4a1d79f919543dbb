package demo

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// current is the file that says which version of an image logins get.
type current struct {
	Version    int `json:"version"`
	Previous   int `json:"previous"`
	Generation int `json:"generation"`
}

// publish makes the guest the current version of the publisher's image. The
// same guest is not published twice, and a version is never written again:
// desktops may run from it.
func (d *demo) publish(o owner) (version int, err error) {
	home := filepath.Join(d.home(), publisher)
	versions := filepath.Join(home, "win4.d")
	if err := errors.Join(makeDir(home, 0o755), makeDir(versions, 0o755)); err != nil {
		return 0, err
	}
	var now current
	file := filepath.Join(versions, "current")
	text, err := os.ReadFile(file)
	if err == nil {
		if err := json.Unmarshal(text, &now); err != nil {
			return 0, fmt.Errorf("%s: %w", file, err)
		}
		if d.opt.guest == "" { // an older start has published one
			return now.Version, nil
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	files, err := guestFiles(d.opt.guest)
	if err != nil {
		return 0, err
	}
	if now.Version > 0 {
		if same(d.opt.guest, filepath.Join(versions, strconv.Itoa(now.Version)), files) {
			return now.Version, nil
		}
	}
	now = current{Version: now.Version + 1, Previous: now.Version, Generation: now.Generation + 1}

	dir := filepath.Join(versions, strconv.Itoa(now.Version))
	new := filepath.Join(versions, ".new")
	if err := errors.Join(os.RemoveAll(dir), os.RemoveAll(new), makeDir(new, 0o755)); err != nil {
		return 0, err
	}
	for _, f := range files {
		to := filepath.Join(new, f)
		if err := errors.Join(copyFile(filepath.Join(d.opt.guest, f), to), o.take(to)); err != nil {
			return 0, err
		}
	}
	text, err = json.Marshal(now)
	if err != nil {
		return 0, err
	}
	link := filepath.Join(home, ".win4.new")
	os.Remove(link)
	err = errors.Join(
		o.take(new), os.Rename(new, dir),
		replaceFile(file, append(text, '\n'), 0o644),
		os.Symlink("win4.d/"+strconv.Itoa(now.Version), link),
		o.take(link), os.Rename(link, filepath.Join(home, "win4")),
		o.take(home), o.take(versions), o.take(file),
	)
	return now.Version, err
}

// guestFiles lists the files of a version, which desktop.conf must be one of.
func guestFiles(dir string) ([]string, error) {
	if dir == "" {
		return nil, errors.New("no guest for the desktops: run make guest and say --guest build/guest")
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("the guest for the desktops: %w; run make guest and say --guest build/guest", err)
	}
	var names []string
	conf := false
	for _, e := range entries {
		if e.Type().IsRegular() && !strings.HasPrefix(e.Name(), ".") {
			names = append(names, e.Name())
			conf = conf || e.Name() == "desktop.conf"
		}
	}
	if !conf {
		return nil, fmt.Errorf("%s is no guest: it has no desktop.conf; run make guest and say --guest build/guest", dir)
	}
	return names, nil
}

// same tells whether a version holds exactly these files of the guest.
func same(guest, version string, files []string) bool {
	have, err := guestFiles(version)
	if err != nil || len(have) != len(files) {
		return false
	}
	for _, f := range files {
		if !sameFile(filepath.Join(guest, f), filepath.Join(version, f)) {
			return false
		}
	}
	return true
}

func sameFile(a, b string) bool {
	fa, err := os.Open(a)
	if err != nil {
		return false
	}
	defer fa.Close()
	fb, err := os.Open(b)
	if err != nil {
		return false
	}
	defer fb.Close()
	bufA, bufB := make([]byte, 1<<20), make([]byte, 1<<20)
	for {
		n, errA := io.ReadFull(fa, bufA)
		m, errB := io.ReadFull(fb, bufB)
		if !bytes.Equal(bufA[:n], bufB[:m]) {
			return false
		}
		if errA != nil || errB != nil {
			return errA == errB && (errA == io.EOF || errA == io.ErrUnexpectedEOF)
		}
	}
}
