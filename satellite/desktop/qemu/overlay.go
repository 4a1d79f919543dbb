package qemu

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"verdecmd/satellite/desktop"
)

const (
	overlaySize  = 256 << 10 // bytes that an empty overlay takes, and some
	keepPrepared = 64        // prepared overlays that are kept; one is made in about 15 ms
)

// prepare returns an empty overlay for base, made by qemu-img at the first
// time. It depends on the base's path and size alone, and is made anew where
// the file is another one or was changed. The base is opened with the user's
// rights and only its header is looked at: qemu-img, which runs with the
// satellite's rights, does not get to see it.
func (d *Driver) prepare(ctx context.Context, base string, user desktop.User) (string, error) {
	var (
		st   unix.Stat_t
		size uint64
	)
	err := user.Do(func() error {
		f, err := os.OpenFile(base, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := unix.Fstat(int(f.Fd()), &st); err != nil {
			return err
		}
		size, err = virtualSize(f)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("%w: %s: %w", desktop.ErrNoImage, base, plain(err))
	}
	key := sha256.Sum256(fmt.Appendf(nil, "1 %q %d %d %d %d %d %d", base, st.Dev, st.Ino, st.Mtim.Sec, st.Mtim.Nsec, st.Size, size))
	path := filepath.Join(d.cfg.PreparedDir, fmt.Sprintf("%x.qcow2", key[:16]))

	d.preparing.Lock()
	defer d.preparing.Unlock()
	if _, err := os.Lstat(path); err == nil {
		return path, nil
	}
	if err := os.MkdirAll(d.cfg.PreparedDir, 0o700); err != nil {
		return "", fmt.Errorf("prepared overlays: %w", err)
	}
	d.prune()
	tmp := path + ".new"
	defer os.Remove(tmp)
	// -u: the base is not opened.
	cmd := exec.CommandContext(ctx, d.cfg.ImageTool, "create", "-q", "-u", "-f", "qcow2", "-F", "qcow2",
		"-b", base, tmp, fmt.Sprint(size))
	out, err := cmd.CombinedOutput()
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return "", fmt.Errorf("%w: %s is missing: apt install qemu-utils", desktop.ErrNoQEMU, d.cfg.ImageTool)
	case err != nil && strings.Contains(string(out), "No space left"):
		return "", noSpace(unix.ENOSPC, d.cfg.PreparedDir, overlaySize)
	case err != nil:
		return "", fmt.Errorf("qemu-img create for %s: %w: %.300q", base, err, out)
	}
	if err := os.Rename(tmp, path); err != nil {
		return "", fmt.Errorf("prepared overlays: %w", err)
	}
	return path, nil
}

// prune forgets the oldest prepared overlays. Nobody holds them open but for
// the copy.
func (d *Driver) prune() {
	entries, err := filepath.Glob(filepath.Join(d.cfg.PreparedDir, "*.qcow2"))
	if err != nil || len(entries) < keepPrepared {
		return
	}
	age := func(path string) int64 {
		if st, err := os.Stat(path); err == nil {
			return st.ModTime().UnixNano()
		}
		return 0
	}
	slices.SortFunc(entries, func(a, b string) int {
		if age(a) < age(b) {
			return -1
		}
		return 1
	})
	for _, path := range entries[:len(entries)-keepPrepared+1] {
		if err := os.Remove(path); err != nil {
			d.log.Warn().Err(err).Msg("old prepared overlay stays")
		}
	}
}

// copyOverlay puts the session's own copy of a prepared overlay into dir.
func copyOverlay(prepared string, dir *sessionDir) error {
	src, err := os.Open(prepared)
	if err != nil {
		return fmt.Errorf("prepared overlay: %w", err)
	}
	defer src.Close()
	dst, err := dir.create(overlayFile, 0)
	if err != nil {
		return noSpace(err, dir.path, overlaySize)
	}
	_, err = io.Copy(dst, src)
	if err = errors.Join(err, dst.Close()); err != nil {
		return fmt.Errorf("overlay: %w", noSpace(err, dir.path, overlaySize))
	}
	return nil
}

// virtualSize reads a qcow2 header. A base that refers to further files is
// refused: it would be read with rights and at times that nobody thought of.
func virtualSize(r io.ReaderAt) (uint64, error) {
	var h [80]byte
	n, err := r.ReadAt(h[:], 0)
	if n < 72 || string(h[:4]) != "QFI\xfb" {
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		return 0, errors.New("not a qcow2 file; make one: qemu-img convert -O qcow2 OLD NEW")
	}
	be := binary.BigEndian
	version := be.Uint32(h[4:])
	if version >= 3 && n < len(h) {
		return 0, errors.New("a qcow2 file that was cut off")
	}
	switch size := be.Uint64(h[24:]); {
	case version != 2 && version != 3:
		return 0, fmt.Errorf("qcow2 version %d is unknown", version)
	case be.Uint64(h[8:]) != 0:
		return 0, errors.New("the image is an overlay of another file; make it whole: qemu-img convert -O qcow2 OLD NEW")
	case version == 3 && be.Uint64(h[72:])&4 != 0:
		return 0, errors.New("the image keeps its data in another file; make it whole: qemu-img convert -O qcow2 OLD NEW")
	case be.Uint32(h[32:]) != 0:
		return 0, errors.New("the image is encrypted")
	case size == 0 || size > 64<<40:
		return 0, fmt.Errorf("a disk of %d bytes", size)
	default:
		return size, nil
	}
}

// noSpace turns "disk full" into ErrNoSpace with the figures; other errors stay.
func noSpace(err error, dir string, need uint64) error {
	if !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) {
		return err
	}
	free := "unknown"
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) == nil {
		free = fmt.Sprintf("%d KiB", st.Bavail*uint64(st.Bsize)/1024)
	}
	if errors.Is(err, unix.EDQUOT) {
		free += ", but the user's quota is used up"
	}
	return fmt.Errorf("%w in %s: %s free, %d KiB and what the desktop will write are needed; free some, or set WIN4_SNAP_DIR to a larger disk",
		desktop.ErrNoSpace, dir, free, need/1024)
}
