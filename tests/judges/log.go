// Reads a transparency log as Go's checksum database reads its own, with sumdb/note and sumdb/tlog.
//
//	log FOLDER LOG-VKEY[,LOG-VKEY...] WITNESS-VKEY PLACE...
//
// FOLDER holds what a log serves (checkpoint, tile/...) and `older`, a checkpoint that was seen before. Checked are the
// signatures of the log, by any of its keys, and of the witness (`-` where there is none), that the log continues the older
// checkpoint, and the entries at the places.
// Exit code 0 where all of that holds, 1 where it does not, 2 where it was asked wrongly.
package main

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// The height of a tile, which C2SP fixes and leaves out of its paths.
const height = 8

type folder string

func (f folder) Height() int { return height }

func (f folder) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var all [][]byte
	for _, tile := range tiles {
		path := strings.Replace(tile.Path(), fmt.Sprintf("tile/%d/", height), "tile/", 1)
		data, err := os.ReadFile(filepath.Join(string(f), path))
		if err != nil {
			return nil, err
		}
		if len(data) != tile.W*tlog.HashSize {
			return nil, fmt.Errorf("%s has %d bytes", path, len(data))
		}
		all = append(all, data)
	}
	return all, nil
}

func (f folder) SaveTiles([]tlog.Tile, [][]byte) {}

// cosigner is a verifier of timestamped cosignatures, which sumdb/note does not know.
type cosigner struct {
	name string
	hash uint32
	key  ed25519.PublicKey
}

func (c cosigner) Name() string    { return c.name }
func (c cosigner) KeyHash() uint32 { return c.hash }
func (c cosigner) Verify(text, signature []byte) bool {
	if len(signature) != 8+ed25519.SignatureSize {
		return false
	}
	message := fmt.Sprintf("cosignature/v1\ntime %d\n%s", binary.BigEndian.Uint64(signature), text)
	return ed25519.Verify(c.key, []byte(message), signature[8:])
}

func newCosigner(vkey string) (note.Verifier, error) {
	parts := strings.SplitN(vkey, "+", 3)
	if len(parts) != 3 {
		return nil, errors.New("a witness's key has three parts")
	}
	hash, err := strconv.ParseUint(parts[1], 16, 32)
	if err != nil {
		return nil, err
	}
	key, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil || len(key) != 33 || key[0] != 4 {
		return nil, errors.New("a witness's key is of type 4")
	}
	return cosigner{parts[0], uint32(hash), key[1:]}, nil
}

// open checks who signed a checkpoint, one of the log's keys and each witness, and reads its three lines.
func (f folder) open(file string, logs []note.Verifier, witnesses ...note.Verifier) (tlog.Tree, error) {
	var tree tlog.Tree
	data, err := os.ReadFile(filepath.Join(string(f), file))
	if err != nil {
		return tree, err
	}
	opened, err := note.Open(data, note.VerifierList(logs...))
	if err != nil {
		return tree, err
	}
	for _, witness := range witnesses {
		if _, err := note.Open(data, note.VerifierList(witness)); err != nil {
			return tree, fmt.Errorf("the witness: %w", err)
		}
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) != 4 || lines[0] != logs[0].Name() {
		return tree, errors.New("not a checkpoint of this log")
	}
	if tree.N, err = strconv.ParseInt(lines[1], 10, 64); err != nil {
		return tree, err
	}
	tree.Hash, err = tlog.ParseHash(lines[2])
	return tree, err
}

// entry takes one entry out of its bundle.
func (f folder) entry(place, size int64) ([]byte, error) {
	tile := tlog.Tile{H: height, L: 0, N: place / 256, W: 256}
	if left := size - tile.N*256; left < 256 {
		tile.W = int(left)
	}
	path := strings.Replace(tile.Path(), fmt.Sprintf("tile/%d/0/", height), "tile/entries/", 1)
	data, err := os.ReadFile(filepath.Join(string(f), path))
	if err != nil {
		return nil, err
	}
	rest := bytes.NewReader(data)
	for at := tile.N * 256; ; at++ {
		var length uint16
		if err := binary.Read(rest, binary.BigEndian, &length); err != nil {
			return nil, err
		}
		entry := make([]byte, length)
		if _, err := rest.Read(entry); err != nil {
			return nil, err
		}
		if at == place {
			return entry, nil
		}
	}
}

func (f folder) judge(logKeys, witnessKey string, places []string) error {
	var logs, witnesses []note.Verifier
	for _, key := range strings.Split(logKeys, ",") {
		log, err := note.NewVerifier(key)
		if err != nil {
			return err
		}
		logs = append(logs, log)
	}
	if witnessKey != "-" {
		witness, err := newCosigner(witnessKey)
		if err != nil {
			return err
		}
		witnesses = append(witnesses, witness)
	}
	older, err := f.open("older", logs)
	if err != nil {
		return err
	}
	tree, err := f.open("checkpoint", logs, witnesses...)
	if err != nil {
		return err
	}
	reader := tlog.TileHashReader(tree, f)
	proof, err := tlog.ProveTree(tree.N, older.N, reader)
	if err != nil {
		return err
	}
	if err := tlog.CheckTree(proof, tree.N, tree.Hash, older.N, older.Hash); err != nil {
		return fmt.Errorf("from %d entries: %w", older.N, err)
	}
	for _, word := range places {
		place, err := strconv.ParseInt(word, 10, 64)
		if err != nil {
			return err
		}
		entry, err := f.entry(place, tree.N)
		if err != nil {
			return err
		}
		proof, err := tlog.ProveRecord(tree.N, place, reader)
		if err != nil {
			return err
		}
		if err := tlog.CheckRecord(proof, tree.N, tree.Hash, place, tlog.RecordHash(entry)); err != nil {
			return fmt.Errorf("entry %d: %w", place, err)
		}
	}
	fmt.Printf("accepted: %d entries, continuing %d, %d of them looked at\n", tree.N, older.N, len(places))
	return nil
}

func main() {
	if len(os.Args) < 4 {
		fmt.Fprintln(os.Stderr, "usage: log FOLDER LOG-VKEY[,LOG-VKEY...] WITNESS-VKEY PLACE...")
		os.Exit(2)
	}
	if err := folder(os.Args[1]).judge(os.Args[2], os.Args[3], os.Args[4:]); err != nil {
		fmt.Fprintln(os.Stderr, "refused:", err)
		os.Exit(1)
	}
}
