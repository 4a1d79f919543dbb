package trust

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"verdecmd/master/store"
	"verdecmd/proto/wire"
)

// FuzzRestore: whatever the records hold, a master either refuses them or has a
// rotation whose every stage names authorities and comes to its end; what a
// satellite has told is fit to be told to all others, and stays what it is when
// it is looked at again.
func FuzzRestore(f *testing.F) {
	f.Add([]byte(`{"version":7,"digest":"ab"}`), []byte(`{"stage":"adding","from":"a","to":"b","since":8}`), []byte(`{"peer":"192.0.2.1:8444"}`))
	f.Add([]byte(`{"version":18446744073709551615}`), []byte(`{"stage":"issuing","from":"a","to":"a","undo":true,"skip":[1,1]}`), []byte(`{"host_keys":["x"],"user_key":"\u0000"}`))
	f.Add([]byte(`{}`), []byte(`{"stage":"none"}`), []byte(`{"peer":"\ud800:1"}`))
	f.Fuzz(func(t *testing.T, bundle, rotation, told []byte) {
		s := store.NewMem()
		var changes []store.Change
		for k, v := range map[store.Key][]byte{bundleKey: bundle, rotationKey: rotation, {Bucket: toldBucket, ID: "u"}: told} {
			if len(v) > 0 && len(v) < store.MaxValue {
				changes = append(changes, store.Change{Key: k, Value: v})
			}
		}
		if err := s.Commit(t.Context(), 1, nil, changes); err != nil {
			t.Fatal(err)
		}
		m := New(Config{Store: s, Epoch: 1, Credentials: &wire.Credentials{}, Dir: t.TempDir()})
		if err := m.Restore(t.Context()); err != nil {
			return
		}
		r := m.now()
		for i := 0; r.Stage != Settled; i++ {
			if roots := r.Roots(); len(roots) == 0 || i > 3 {
				t.Fatalf("%+v names no authorities, or does not end", r)
			}
			r = r.Onward(1)
		}
		for _, x := range m.told {
			once := x.checked()
			if !once.checked().same(once) || strings.ContainsAny(once.Peer+once.UserKey, "\n\x00") || slices.Contains(once.HostKeys, "") {
				t.Errorf("%+v becomes %+v, then %+v", x, once, once.checked())
			}
		}
		if err := s.View(t.Context(), func(s store.Snapshot) error {
			changes, err := FromCopy(s)
			var row bundleRow
			if err == nil {
				err = json.Unmarshal(changes[0].Value, &row)
			}
			if err == nil && row.Version < m.bundle.version+leap && m.bundle.version < mostVersion {
				t.Errorf("version %d of a copy, was %d", row.Version, m.bundle.version)
			}
			return err
		}); err != nil {
			t.Error(err)
		}
	})
}
