package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"slices"
)

// verify reads a database file as bytes, without bbolt: bbolt trusts what it
// maps into memory and answers damage with a panic, in part on a goroutine
// that nobody can recover, or with wrong values. Every page that belongs to
// the tree is checked for its place, its order and its seals, and all of them
// together for completeness. Free pages may hold anything.
//
// The format is that of bbolt 1.x (version 2), with one top bucket and no
// free list on the disk.
func verify(r io.ReaderAt, size int64) (head, error) {
	return (&verifier{r: r, size: size}).all()
}

func (v *verifier) all() (head, error) {
	if err := v.metas(); err != nil {
		return head{}, err
	}
	v.owner = make([]bool, v.pages)
	if err := v.tree(v.root, 0, nil, nil, v.topBucket); err != nil {
		return head{}, err
	}
	switch {
	case !v.sawTop:
		return head{}, errors.New("the records are missing")
	case v.head == nil:
		return head{}, errors.New("the head record is missing")
	case v.head.tally != v.tally:
		return head{}, fmt.Errorf("%d records instead of %d, or some of them are older ones", v.tally.count, v.head.tally.count)
	}
	return *v.head, nil
}

const (
	boltMagic      = 0xED0CDAED
	boltVersion    = 2
	boltNoFreelist = ^uint64(0)
	boltMetaSize   = 64 // bytes, with its checksum

	pageHeader   = 16
	pageBranch   = 0x01
	pageLeaf     = 0x02
	pageMeta     = 0x04
	pageElement  = 16
	bucketHeader = 16 // root page, sequence
	bucketLeaf   = 0x01

	maxDepth = 40
)

// topBucketName is the one bucket in which all records are.
var topBucketName = []byte("records")

type verifier struct {
	r        io.ReaderAt
	size     int64
	pageSize int64
	pages    uint64 // high water mark
	root     uint64
	anyTurn  bool   // the meta pages may stand as bbolt leaves them in a copy
	owner    []bool // by page: is part of the tree; nil where only a part of it is walked
	// want tells whether keys from low on and before high (nil: no bound) are
	// of interest; nil: all are. With near, so are the pages beside theirs.
	want    func(low, high []byte) bool
	near    bool
	buffers [maxDepth + 1][]byte

	sawTop bool
	head   *head
	tally  tally
}

var order = binary.NativeEndian

// metas takes the newer of the two meta pages. Both must be whole: bbolt goes
// back by one commit when one is not, and each fits into one sector, so a
// power cut does not tear it.
func (v *verifier) metas() error {
	first := make([]byte, pageHeader+boltMetaSize)
	if _, err := v.r.ReadAt(first, 0); err != nil {
		return errors.New("the file is shorter than one page")
	}
	v.pageSize = int64(order.Uint32(first[pageHeader+8:]))
	if v.pageSize < 512 || v.pageSize > 65536 || v.pageSize&(v.pageSize-1) != 0 {
		return errors.New("meta page 0 is not one of this database")
	}
	var txs [2]uint64
	for i := range uint64(2) {
		b := make([]byte, pageHeader+boltMetaSize)
		if _, err := v.r.ReadAt(b, int64(i)*v.pageSize); err != nil {
			return fmt.Errorf("meta page %d is missing", i)
		}
		m := b[pageHeader:]
		sum := fnv.New64a()
		sum.Write(m[:boltMetaSize-8])
		switch {
		case order.Uint64(b) != i || order.Uint16(b[8:]) != pageMeta,
			order.Uint32(m) != boltMagic, order.Uint32(m[4:]) != boltVersion,
			int64(order.Uint32(m[8:])) != v.pageSize,
			order.Uint64(m[56:]) != sum.Sum64():
			return fmt.Errorf("meta page %d does not match its checksum", i)
		case order.Uint64(m[32:]) != boltNoFreelist:
			return fmt.Errorf("meta page %d names a free list, which this program never writes", i)
		}
		if txs[i] = order.Uint64(m[48:]); i == 0 || txs[1] > txs[0] {
			v.root, v.pages = order.Uint64(m[16:]), order.Uint64(m[40:])
		}
	}
	// bbolt writes them in turn. An older one that has come back would hide the
	// last commit.
	if a, b := txs[0], txs[1]; !v.anyTurn && (a%2 != 0 || b%2 != 1 || a+1 != b && b+1 != a) {
		return fmt.Errorf("the meta pages are of the transactions %d and %d, one of them is an older one", a, b)
	}
	if v.pages < 3 || v.pages > uint64(v.size/v.pageSize) {
		return fmt.Errorf("the file has %d bytes, its %d pages need %d", v.size, v.pages, v.pages*uint64(v.pageSize))
	}
	return nil
}

// tree walks the page id and all below it. Keys must be from low on and
// before high (nil: no bound); leaf gets every element.
func (v *verifier) tree(id uint64, depth int, low, high []byte, leaf func(flags uint32, key, value []byte) error) error {
	if depth > maxDepth {
		return fmt.Errorf("page %d: the tree is too deep", id)
	}
	page, err := v.page(id, depth)
	if err != nil {
		return err
	}
	return v.walk(page, id, depth, low, high, leaf)
}

// page reads one page with its overflow and marks it as used. It is valid until
// the next page of the same depth is read.
func (v *verifier) page(id uint64, depth int) ([]byte, error) {
	if id < 2 || id >= v.pages {
		return nil, fmt.Errorf("page %d is outside of the file", id)
	}
	if v.buffers[depth] == nil {
		v.buffers[depth] = make([]byte, v.pageSize)
	}
	page := v.buffers[depth]
	if _, err := v.r.ReadAt(page, int64(id)*v.pageSize); err != nil {
		return nil, fmt.Errorf("page %d: %w", id, err)
	}
	if order.Uint64(page) != id {
		return nil, fmt.Errorf("page %d says that it is page %d", id, order.Uint64(page))
	}
	more := uint64(order.Uint32(page[12:]))
	if id+more >= v.pages {
		return nil, fmt.Errorf("page %d goes beyond the file", id)
	}
	for i := id; v.owner != nil && i <= id+more; i++ {
		if v.owner[i] {
			return nil, fmt.Errorf("page %d is used twice", i)
		}
		v.owner[i] = true
	}
	if more > 0 {
		page = slices.Concat(page, make([]byte, int64(more)*v.pageSize))
		if _, err := v.r.ReadAt(page[v.pageSize:], int64(id+1)*v.pageSize); err != nil {
			return nil, fmt.Errorf("page %d: %w", id+1, err)
		}
	}
	return page, nil
}

// walk checks the elements of a page, or of a bucket inside a leaf.
func (v *verifier) walk(page []byte, id uint64, depth int, low, high []byte, leaf func(uint32, []byte, []byte) error) error {
	flags, count := order.Uint16(page[8:]), int(order.Uint16(page[10:]))
	if flags != pageBranch && flags != pageLeaf {
		return fmt.Errorf("page %d is of no known type (%#x)", id, flags)
	}
	if pageHeader+count*pageElement > len(page) || flags == pageBranch && count == 0 {
		return fmt.Errorf("page %d has an impossible number of elements (%d)", id, count)
	}
	key := func(i int) ([]byte, uint64, error) {
		at := uint64(pageHeader + i*pageElement)
		e := page[at:]
		pos, ksize := uint64(order.Uint32(e)), uint64(order.Uint32(e[4:]))
		if flags == pageLeaf {
			pos, ksize = uint64(order.Uint32(e[4:])), uint64(order.Uint32(e[8:]))
		}
		start := at + pos
		if pos < uint64(pageElement) || start+ksize > uint64(len(page)) {
			return nil, 0, fmt.Errorf("page %d: element %d lies outside of it", id, i)
		}
		return page[start : start+ksize], start + ksize, nil
	}
	// There is no gap anywhere: else a number of elements that is too small
	// would hide records.
	behind := uint64(pageHeader + count*pageElement)
	var before []byte
	for i := range count {
		k, end, err := key(i)
		if err != nil {
			return err
		}
		if end-uint64(len(k)) != behind {
			return fmt.Errorf("page %d: element %d is not where it should be", id, i)
		}
		behind = end
		first := i == 0 && flags == pageBranch // bbolt finds smaller keys below it too
		switch {
		case i > 0 && bytes.Compare(before, k) >= 0,
			!first && low != nil && bytes.Compare(k, low) < 0,
			high != nil && bytes.Compare(k, high) >= 0:
			return fmt.Errorf("page %d: element %d is out of order", id, i)
		}
		before = k
		e := page[pageHeader+i*pageElement:]
		if flags == pageLeaf {
			vsize := uint64(order.Uint32(e[12:]))
			if end+vsize > uint64(len(page)) {
				return fmt.Errorf("page %d: element %d lies outside of it", id, i)
			}
			behind = end + vsize
			if err := leaf(order.Uint32(e), k, page[end:end+vsize]); err != nil {
				return fmt.Errorf("page %d: %w", id, err)
			}
			continue
		}
		next := high
		if i+1 < count {
			if next, _, err = key(i + 1); err != nil {
				return err
			}
		}
		if v.want != nil {
			from := k
			if first {
				from = low
			}
			here := v.want(from, next)
			if !here && v.near { // beside it?
				left, right := low, high
				if i > 0 {
					if left, _, err = key(i - 1); err != nil {
						return err
					}
					here = v.want(left, k)
				}
				if i+1 < count {
					if i+2 < count {
						if right, _, err = key(i + 2); err != nil {
							return err
						}
					}
					here = here || v.want(next, right)
				}
			}
			if !here {
				continue
			}
		}
		if err := v.tree(order.Uint64(e[8:]), depth+1, k, next, leaf); err != nil {
			return err
		}
	}
	return nil
}

// topBucket checks the one element of the root: the bucket of the records.
func (v *verifier) topBucket(flags uint32, key, value []byte) error {
	if v.sawTop || flags != bucketLeaf || !bytes.Equal(key, topBucketName) || len(value) < bucketHeader {
		return errors.New("not the bucket of this database")
	}
	v.sawTop = true
	root := order.Uint64(value)
	if root != 0 {
		return v.tree(root, 1, nil, nil, v.record)
	}
	inline := value[bucketHeader:]
	if len(inline) < pageHeader || order.Uint16(inline[8:]) != pageLeaf {
		return errors.New("the bucket inside does not match")
	}
	return v.walk(inline, 0, 0, nil, nil, v.record)
}

// record checks one record's seal.
func (v *verifier) record(flags uint32, key, value []byte) error {
	payload, err := unseal(key, value)
	if flags != 0 {
		err = errors.New("flags differ")
	}
	if bytes.Equal(key, headRow) {
		var h head
		if err == nil {
			h, err = decodeHead(payload)
		}
		if err != nil {
			return fmt.Errorf("head record: %w", err)
		}
		v.head = &h
		return nil
	}
	if err != nil {
		return fmt.Errorf("record %.100q: %w", splitRow(key).String(), err)
	}
	v.tally.add(value)
	return nil
}

// keysAmong makes a want of keys in byte order.
func keysAmong(keys [][]byte) func(low, high []byte) bool {
	return func(low, high []byte) bool {
		i, _ := slices.BinarySearchFunc(keys, low, bytes.Compare)
		return i < len(keys) && (high == nil || bytes.Compare(keys[i], high) < 0)
	}
}

// verifyPaths checks the newest state of a database, but only the pages on the
// way to keys, which are in byte order; with near those beside them, too. These
// are what bbolt reads, and frees, when it changes them.
func verifyPaths(r io.ReaderAt, size int64, keys [][]byte, near bool) error {
	v := &verifier{r: r, size: size, want: keysAmong(keys), near: near}
	if err := v.metas(); err != nil {
		return err
	}
	if err := v.tree(v.root, 0, nil, nil, v.topBucket); err != nil {
		return err
	}
	if !v.sawTop {
		return errors.New("the records are missing")
	}
	return nil
}
