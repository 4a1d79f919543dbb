package master

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"verdecmd/master/job"
	"verdecmd/master/store"
	"verdecmd/monitor"
	"verdecmd/settings/service"
)

// backupAction is the action of the job.
const backupAction = "backup"

// Backup starts the job that copies the database to path.
func (b backend) Backup(ctx context.Context, path string) (monitor.Job, bool, error) {
	path, err := backupPath(path)
	if err != nil {
		return monitor.Job{}, false, err
	}
	by := caller(ctx)
	j, joined, err := b.m.jobs.Start(ctx, job.Spec{Action: backupAction, Object: path, By: by}, b.m.copyTo(path, false))
	return j, joined, refusal(err)
}

// copyTo is the work of the job. again is set where a master before this one
// had begun it: a file that is there by now is that one's.
func (m *Master) copyTo(path string, again bool) job.Func {
	return func(ctx context.Context, p *job.Progress) job.Outcome {
		start := p.Record().Started
		p.Set(0, "copying the database")
		err := m.cfg.Store.Backup(ctx, path)
		pairs := []monitor.Pair{{Key: "path", Value: path}}
		failed := func(code int, text string) job.Outcome {
			return job.Outcome{Code: code, Pairs: append(pairs, monitor.Pair{Key: "msg", Value: text}), Text: text}
		}
		switch {
		case errors.Is(err, fs.ErrExist) && !(again && store.Verify(path) == nil):
			return job.Outcome{Code: 551, Pairs: []monitor.Pair{{Key: "kind", Value: "file"}, {Key: "id", Value: path}}, Text: fmt.Sprintf("%s is there already; name another file.", path)}
		case errors.Is(err, context.Canceled):
			return failed(444, "cancelled, nothing is left of the copy")
		case errors.Is(err, store.ErrNoSpace):
			return failed(452, err.Error())
		case err != nil && !errors.Is(err, fs.ErrExist):
			return failed(555, err.Error()+service.Protected(err))
		}
		var size int64
		if at, err := os.Stat(path); err == nil {
			size = at.Size()
		}
		elapsed := int64(time.Since(start).Round(time.Second) / time.Second)
		return job.Outcome{Code: 200, Pairs: append(pairs, monitor.Pair{Key: "bytes", Value: size}, monitor.Pair{Key: "elapsed", Value: elapsed}),
			Text: fmt.Sprintf("The database is copied to %s (%d KiB).", path, (size+1023)>>10)}
	}
}

// backupPath checks where a copy may go: a file that is not there, in a
// directory where nobody but its owner and root could put another one in its
// place. It returns the path without symbolic links.
func backupPath(path string) (string, error) {
	bad := func(format string, args ...any) (string, error) {
		return "", monitor.Errorf(553, []monitor.Pair{{Key: "key", Value: "path"}, {Key: "value", Value: path}}, format, args...)
	}
	if !filepath.IsAbs(path) || len(path) > 4000 {
		return bad("the path must be absolute, one that begins with /")
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(filepath.Clean(path)))
	if err != nil {
		return bad("the directory cannot be used: %v", err)
	}
	if private(dir, "/proc/self/mountinfo") {
		return bad("the unit gives the master %s of its own, which is gone with the service: choose another directory, such as /var/lib/win4linpro", dir)
	}
	for at := dir; ; at = filepath.Dir(at) {
		info, err := os.Stat(at)
		if err != nil {
			return bad("the directory cannot be used: %v", err)
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		switch {
		case !info.IsDir():
			return bad("%s is not a directory", at)
		case !ok || st.Uid != 0 && int(st.Uid) != os.Geteuid():
			return bad("%s belongs to the user with the number %d, who could replace the copy; choose a directory of root", at, st.Uid)
		case info.Mode().Perm()&0o022 != 0 && info.Mode()&fs.ModeSticky == 0:
			return bad("others can write in %s (mode %04o) and could replace the copy; choose a directory where only root writes", at, info.Mode().Perm())
		}
		if at == "/" {
			break
		}
	}
	path = filepath.Join(dir, filepath.Base(path))
	if _, err := os.Lstat(path); err == nil {
		return "", &monitor.Error{Code: 551, Pairs: []monitor.Pair{{Key: "kind", Value: "file"}, {Key: "id", Value: path}}, Text: fmt.Sprintf("%s is there already; name another file.", path)}
	}
	return path, nil
}

// private tells whether a directory is in a /tmp that systemd has made for this
// service alone (PrivateTmp=): what is written there nobody else sees.
func private(dir, mountinfo string) bool {
	if !strings.HasPrefix(dir+"/", "/tmp/") && !strings.HasPrefix(dir+"/", "/var/tmp/") {
		return false
	}
	b, err := os.ReadFile(mountinfo)
	return err == nil && strings.Contains(string(b), "/systemd-private-")
}
