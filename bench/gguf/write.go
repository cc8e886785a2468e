package gguf

import (
	"encoding/binary"
	"reflect"
)

// Header encodes the header as ggml does, padded up to the start of the tensors'
// data. It fails if a value is Skipped, or of a type that the format lacks.
func (f *File) Header() ([]byte, error) {
	e := &encoder{}
	e.b = append(e.b, magic...)
	e.uint32(f.Version)
	e.uint64(uint64(len(f.Tensors)))
	e.uint64(uint64(len(f.KV)))
	seen := make(map[string]bool, len(f.KV))
	for i, kv := range f.KV {
		if seen[kv.Key] || kv.Key == "" {
			return nil, refuse(ErrCorrupt, "key %d %q is empty or not unique", i, kv.Key)
		}
		seen[kv.Key] = true
		e.string(kv.Key)
		if !e.value(reflect.ValueOf(kv.Value)) {
			return nil, refuse(ErrUnsupported, "key %d %q has a value of type %T, which cannot be written", i, kv.Key, kv.Value)
		}
	}
	for _, t := range f.Tensors {
		e.string(t.Name)
		e.uint32(uint32(len(t.Dims)))
		for _, d := range t.Dims {
			e.uint64(d)
		}
		e.uint32(uint32(t.Type))
		e.uint64(t.Offset)
	}
	return append(e.b, make([]byte, pad(uint64(len(e.b)), f.Alignment)-uint64(len(e.b)))...), nil
}

// encoder writes the parts of a header.
type encoder struct{ b []byte }

func (e *encoder) uint32(v uint32) { e.b = binary.LittleEndian.AppendUint32(e.b, v) }
func (e *encoder) uint64(v uint64) { e.b = binary.LittleEndian.AppendUint64(e.b, v) }
func (e *encoder) string(v string) {
	e.uint64(uint64(len(v)))
	e.b = append(e.b, v...)
}

// value writes a value with its type. It reports whether the format has the type.
func (e *encoder) value(v reflect.Value) bool {
	if v.Kind() != reflect.Slice {
		t, ok := valueTypes[v.Kind()]
		e.uint32(uint32(t))
		return ok && e.scalar(v)
	}
	t, ok := valueTypes[v.Type().Elem().Kind()]
	e.uint32(uint32(typeArray))
	e.uint32(uint32(t))
	e.uint64(uint64(v.Len()))
	for i := 0; ok && i < v.Len(); i++ {
		ok = e.scalar(v.Index(i))
	}
	return ok
}

// scalar writes a value without its type.
func (e *encoder) scalar(v reflect.Value) bool {
	if v.Kind() == reflect.String {
		e.string(v.String())
		return true
	}
	b, err := binary.Append(e.b, binary.LittleEndian, v.Interface())
	if err == nil {
		e.b = b
	}
	return err == nil
}

var valueTypes = map[reflect.Kind]valueType{
	reflect.Uint8:   typeUint8,
	reflect.Int8:    typeInt8,
	reflect.Uint16:  typeUint16,
	reflect.Int16:   typeInt16,
	reflect.Uint32:  typeUint32,
	reflect.Int32:   typeInt32,
	reflect.Uint64:  typeUint64,
	reflect.Int64:   typeInt64,
	reflect.Float32: typeFloat32,
	reflect.Float64: typeFloat64,
	reflect.Bool:    typeBool,
	reflect.String:  typeString,
}
