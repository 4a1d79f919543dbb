package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"

	"verdecmd/proto/planted"
)

// A sealed record is version (1 byte), payload length (4, big endian), sum
// (4, big endian), payload. The sum is CRC-32C over the key (bucket, NUL, ID)
// and the payload, begun with both lengths: a record that was moved to another
// key does not match either.
const (
	sealVersion = 1
	sealHeader  = 9
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// rowKey is the key of a record in the file.
func rowKey(k Key) []byte { return []byte(k.Bucket + "\x00" + k.ID) }

func splitRow(row []byte) Key {
	bucket, id, _ := strings.Cut(string(row), "\x00")
	return Key{bucket, id}
}

func sum(row, payload []byte) uint32 {
	s := crc32.Update(uint32(len(row))<<21^uint32(len(payload)), castagnoli, row)
	return crc32.Update(s, castagnoli, payload)
}

func seal(row, payload []byte) []byte {
	b := make([]byte, sealHeader, sealHeader+len(payload))
	b[0] = sealVersion
	binary.BigEndian.PutUint32(b[1:], uint32(len(payload)))
	binary.BigEndian.PutUint32(b[5:], sum(row, payload))
	return append(b, payload...)
}

// unseal returns the payload inside b, without a copy.
func unseal(row, b []byte) ([]byte, error) {
	switch {
	case len(b) < sealHeader:
		return nil, errors.New("shorter than its seal")
	case b[0] != sealVersion:
		return nil, fmt.Errorf("seal version %d, this program knows %d", b[0], sealVersion)
	case uint64(binary.BigEndian.Uint32(b[1:])) != uint64(len(b)-sealHeader):
		return nil, errors.New("length differs from its seal")
	case binary.BigEndian.Uint32(b[5:]) != sum(row, b[sealHeader:]) && !planted.Bug("seal-unchecked"):
		return nil, errors.New("checksum differs")
	}
	return b[sealHeader:], nil
}

// head is the one record about all others, written with every commit: seals
// alone would not show that a record is missing or an older one has come back.
type head struct {
	epoch Epoch
	tally tally
}

// headRow sorts before all records, as bucket names are not empty.
var headRow = []byte("\x00head")

func (h head) encode() []byte {
	b := make([]byte, 0, 24)
	b = binary.BigEndian.AppendUint64(b, uint64(h.epoch))
	b = binary.BigEndian.AppendUint64(b, h.tally.count)
	return binary.BigEndian.AppendUint64(b, h.tally.sum)
}

func decodeHead(b []byte) (head, error) {
	if len(b) != 24 {
		return head{}, fmt.Errorf("%d bytes instead of 24", len(b))
	}
	return head{
		epoch: Epoch(binary.BigEndian.Uint64(b)),
		tally: tally{binary.BigEndian.Uint64(b[8:]), binary.BigEndian.Uint64(b[16:])},
	}, nil
}

// tally is a sum over a set of sealed records that does not depend on their
// order, so a commit changes it without reading the others.
type tally struct{ count, sum uint64 }

// add and sub take a record's sealed form, whose checksum covers its key.
func (t *tally) add(sealed []byte) { t.count++; t.sum += spread(sealed) }
func (t *tally) sub(sealed []byte) { t.count--; t.sum -= spread(sealed) }

// spread makes 64 bits of a seal's 32, so that sums of many do not cancel each
// other out (the finalizer of splitmix64).
func spread(sealed []byte) uint64 {
	x := uint64(binary.BigEndian.Uint32(sealed[5:])) + 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
