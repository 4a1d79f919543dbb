package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"verdecmd/settings"
)

// firstUID is the publisher's; users follow. Nothing is added to the machine's
// own accounts. Without root the numbers are just different from each other, as
// a cluster wants them: satellites run all desktops as the caller then.
const firstUID = 20000

// owner is an account of the demo's. Files are given to it where the demo runs
// as root; else they stay the caller's.
type owner struct {
	give     bool
	uid, gid int
}

func (o owner) take(path string) error {
	if !o.give {
		return nil
	}
	return os.Lchown(path, o.uid, o.gid)
}

// makeDir makes a directory with exactly this mode, whatever the umask.
func makeDir(path string, mode fs.FileMode) error {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return err
	}
	return os.Chmod(path, mode)
}

// claim makes the directory of a demo, or accepts one that is a demo's or empty
// and belongs to the caller.
func (l layout) claim(uid int) error {
	if err := os.MkdirAll(filepath.Dir(l.dir), 0o755); err != nil {
		return err
	}
	err := os.Mkdir(l.dir, 0o755)
	if err == nil {
		return os.Chmod(l.dir, 0o755)
	}
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	info, err := os.Lstat(l.dir)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is no directory; take another --dir", l.dir)
	}
	if have := ownerOf(info); have != uid {
		return fmt.Errorf("%s belongs to another user (uid %d); take another --dir", l.dir, have)
	}
	if _, err := os.Stat(l.lockFile()); err == nil {
		return nil
	}
	names, err := os.ReadDir(l.dir)
	if err == nil && len(names) > 0 {
		return fmt.Errorf("%s is not empty and not a demo's; take another --dir", l.dir)
	}
	return err
}

// accounts writes the passwd-format file and the homes, and returns who owns
// what of each user and of the publisher. Accounts that are there stay.
func (d *demo) accounts(users []string) (map[string]owner, error) {
	text, err := os.ReadFile(d.passwd())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	owners := map[string]owner{}
	next := firstUID
	for line := range strings.Lines(string(text)) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) < 7 {
			continue
		}
		uid, err1 := strconv.ParseUint(f[2], 10, 31)
		gid, err2 := strconv.ParseUint(f[3], 10, 31)
		if err := errors.Join(err1, err2); err != nil {
			return nil, fmt.Errorf("%s: the line of %s: %w", d.passwd(), f[0], err)
		}
		owners[f[0]] = owner{d.root, int(uid), int(gid)}
		next = max(next, int(uid)+1)
	}
	new := bytes.NewBuffer(text)
	if len(text) > 0 && !bytes.HasSuffix(text, []byte("\n")) {
		new.WriteByte('\n')
	}
	for _, u := range slices.Concat([]string{publisher}, users) {
		if _, ok := owners[u]; !ok {
			o := owner{d.root, next, next}
			next++
			owners[u] = o
			fmt.Fprintf(new, "%s:x:%d:%d::%s:/bin/sh\n", u, o.uid, o.gid, filepath.Join(d.home(), u))
		}
	}
	if err := replaceFile(d.passwd(), new.Bytes(), 0o644); err != nil {
		return nil, err
	}
	if err := makeDir(d.home(), 0o755); err != nil {
		return nil, err
	}
	for _, u := range users {
		home := filepath.Join(d.home(), u)
		if err := makeDir(home, 0o700); err != nil {
			return nil, err
		}
		link := filepath.Join(home, "win4")
		if err := os.Symlink("../"+publisher+"/win4", link); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		if err := errors.Join(owners[u].take(home), owners[u].take(link)); err != nil {
			return nil, err
		}
	}
	return owners, nil
}

// credentials makes the cluster's keys, and those of the satellites that have
// none.
func (d *demo) credentials(ctx context.Context, p plan) error {
	if _, err := os.Stat(d.pki()); errors.Is(err, fs.ErrNotExist) {
		if _, err := d.run(ctx, "init", "--settings", d.settings()); err != nil {
			os.RemoveAll(d.pki()) // half a PKI helps nobody
			return fmt.Errorf("making the cluster's keys: %w", err)
		}
	}
	for i, s := range p.Satellites[:p.Run] {
		pki := filepath.Join(d.satellite(i+1), "pki")
		if _, err := os.Stat(pki); err == nil {
			continue
		}
		new := pki + ".new"
		if err := os.RemoveAll(new); err != nil {
			return err
		}
		if _, err := d.run(ctx, "enrol", s.Name, "--settings", d.settings(), "--out", new); err != nil {
			return fmt.Errorf("enrolling %s: %w", s.Name, err)
		}
		if err := os.Rename(new, pki); err != nil {
			return err
		}
	}
	return nil
}

// configure makes the directories and settings of master and satellites. A
// settings file that is there stays as it is: it is there to be played with.
func (d *demo) configure(p plan) error {
	if err := makeDir(filepath.Join(d.dir, "log"), 0o755); err != nil {
		return err
	}
	cmaddr := fmt.Sprintf("%s:%d", p.Master, settings.MasterPort)
	err := writeSettings(d.settings(), "The master of this demo.", []string{
		settings.ClusterMaster, "yes",
		settings.CMAddr, cmaddr,
		settings.Listen, cmaddr,
		settings.Socket, d.socket(),
		settings.ConnUID, strconv.Itoa(d.uid),
		settings.ConnGID, strconv.Itoa(os.Getgid()),
		settings.StateDir, filepath.Join(d.dir, "master"),
		settings.PKIDir, d.pki(),
		settings.PasswdFile, d.passwd(),
	})
	if err != nil {
		return err
	}
	for i, s := range p.Satellites[:p.Run] {
		dir := d.satellite(i + 1)
		snap := filepath.Join(dir, "snap")
		if err := errors.Join(makeDir(dir, 0o755), makeDir(snap, 0o711)); err != nil {
			return err
		}
		err := writeSettings(filepath.Join(dir, "settings.global"), "The satellite "+s.Name+" of this demo.", []string{
			settings.CMAddr, cmaddr,
			settings.PubAddr, s.Address,
			settings.PeerListen, s.Address,
			settings.StateDir, filepath.Join(dir, "state"),
			settings.PKIDir, filepath.Join(dir, "pki"),
			settings.SnapDir, snap,
			settings.SnapReserve, "256",
			settings.SatSocket, d.satSocket(i + 1),
			settings.Accel, "auto",
			settings.Network, "user",
			settings.PasswdFile, d.passwd(),
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// writeSettings writes names and values in turn, unless the file exists.
func writeSettings(path, title string, pairs []string) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	f, err := settings.ParseFile(path, []byte("# "+title+"\n# It is written once: change it as you like; \"verdecmd settings list\" explains.\n"))
	if err != nil {
		return err
	}
	for s := range slices.Chunk(pairs, 2) {
		if err := f.Set(s[0], s[1]); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return replaceFile(path, f.Bytes(), 0o644)
}

func copyFile(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close(), os.Chmod(to, 0o444))
}
