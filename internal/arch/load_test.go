package arch

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

const module = "github.com/writ-project/writ"

// A goPackage is one directory of Go files, whatever their build tags.
type goPackage struct {
	path  string // relative to the module
	name  string
	files []goFile // without tests
	tests []goFile
}

type goFile struct {
	name      string
	lines     int
	generated bool
	ast       *ast.File
}

// load parses every package of the module in fsys, in order of path.
func load(fsys fs.FS) ([]*goPackage, error) {
	byPath := map[string]*goPackage{}
	fset := token.NewFileSet()
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := path.Base(name)
		if d.IsDir() {
			if name != "." && (base[0] == '.' || base[0] == '_' || base == "testdata" || name == "tools") {
				return fs.SkipDir
			}
			return nil
		}
		if path.Ext(name) != ".go" || base[0] == '.' || base[0] == '_' {
			return nil
		}
		src, err := fs.ReadFile(fsys, name)
		if err != nil {
			return fmt.Errorf("reading %s: %w", name, err)
		}
		f, err := parser.ParseFile(fset, name, src, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return fmt.Errorf("parsing %s: %w", name, err)
		}
		dir := path.Dir(name)
		p := byPath[dir]
		if p == nil {
			p = &goPackage{path: dir}
			byPath[dir] = p
		}
		file := goFile{name: name, lines: bytes.Count(src, []byte("\n")), generated: ast.IsGenerated(f), ast: f}
		if strings.HasSuffix(name, "_test.go") {
			p.tests = append(p.tests, file)
			return nil
		}
		p.name = f.Name.Name
		p.files = append(p.files, file)
		return nil
	})
	if err != nil {
		return nil, err
	}
	var pkgs []*goPackage
	for _, p := range byPath {
		pkgs = append(pkgs, p)
	}
	slices.SortFunc(pkgs, func(a, b *goPackage) int { return strings.Compare(a.path, b.path) })
	return pkgs, nil
}

// imports returns the distinct import paths of p's files, tests left out.
func (p *goPackage) imports() []string {
	var out []string
	for _, f := range p.files {
		for _, spec := range f.ast.Imports {
			out = append(out, importPath(spec))
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func importPath(spec *ast.ImportSpec) string {
	s, err := strconv.Unquote(spec.Path.Value)
	if err != nil {
		panic(err) // the parser accepted it
	}
	return s
}

// receiver returns the name of the type fn is a method of, or "".
func receiver(fn *ast.FuncDecl) string {
	if fn.Recv == nil || len(fn.Recv.List) == 0 {
		return ""
	}
	t := fn.Recv.List[0].Type
	for {
		switch x := t.(type) {
		case *ast.StarExpr:
			t = x.X
		case *ast.IndexExpr:
			t = x.X
		case *ast.IndexListExpr:
			t = x.X
		case *ast.Ident:
			return x.Name
		default:
			return ""
		}
	}
}
