// Command main prints the fields of Kubernetes' configuration documents as the Go types have them that define them:
// a line of kind, path and type each, parted by tabs. In a path `[]` is an entry of a list and `{}` a value of a map.
//
// Its standard input is JSON: "modules" maps import paths of modules to directories of their sources, "kinds" maps
// kinds of documents to their types, written import/path.Type. The sources are parsed, not compiled, so that one Go
// release reads those of every Kubernetes release.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"log"
	"os"
	"path/filepath"
	"reflect"
	"sort"
	"strconv"
	"strings"
)

// Types that read JSON in their own way, and basic types.
var scalars = map[string]string{
	"string": "string", "bool": "bool", "float32": "float", "float64": "float",
	"int": "int", "int32": "int32", "int64": "int", "uint": "uint", "uint32": "uint32", "uint64": "uint",
	"time.Duration": "int",
	"k8s.io/apimachinery/pkg/apis/meta/v1.Duration":        "duration",
	"k8s.io/apimachinery/pkg/apis/meta/v1.Time":            "time",
	"k8s.io/apimachinery/pkg/api/resource.Quantity":        "quantity",
	"k8s.io/component-base/logs/api/v1.TimeOrMetaDuration": "duration or int",
	"k8s.io/component-base/logs/api/v1.QuantityValue":      "quantity",
}

type source struct {
	path    string
	imports map[string]string
}

type definition struct {
	expression ast.Expr
	source     source
	own        bool // reads JSON in its own way
}

var (
	modules = map[string]string{}
	parsed  = map[string]map[string]*definition{}
)

func directory(path string) string {
	for prefix := path; prefix != "."; prefix = filepath.Dir(prefix) {
		if root, found := modules[prefix]; found {
			return filepath.Join(root, strings.TrimPrefix(path, prefix))
		}
	}
	log.Fatalf("no module has the package %s", path)
	return ""
}

// definitions has the types of a package by their names.
func definitions(path string) map[string]*definition {
	if found, done := parsed[path]; done {
		return found
	}
	found, readers := map[string]*definition{}, map[string]bool{}
	files, err := filepath.Glob(filepath.Join(directory(path), "*.go"))
	if err != nil || len(files) == 0 {
		log.Fatalf("%s: no Go files in %s", path, directory(path))
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			log.Fatal(err)
		}
		own := source{path, map[string]string{}}
		for _, each := range file.Imports {
			imported, _ := strconv.Unquote(each.Path.Value)
			short := filepath.Base(imported)
			if each.Name != nil {
				short = each.Name.Name
			}
			own.imports[short] = imported
		}
		for _, declared := range file.Decls {
			switch each := declared.(type) {
			case *ast.GenDecl:
				for _, spec := range each.Specs {
					if of, is := spec.(*ast.TypeSpec); is {
						found[of.Name.Name] = &definition{of.Type, own, false}
					}
				}
			case *ast.FuncDecl:
				if each.Recv != nil && (each.Name.Name == "UnmarshalJSON" || each.Name.Name == "UnmarshalText") {
					receiver := each.Recv.List[0].Type
					if pointer, is := receiver.(*ast.StarExpr); is {
						receiver = pointer.X
					}
					readers[fmt.Sprint(receiver)] = true
				}
			}
		}
	}
	for name := range readers {
		if found[name] != nil {
			found[name].own = true
		}
	}
	parsed[path] = found
	return found
}

type walker struct {
	kind string
	rows map[string]bool
}

func (w walker) walk(path string, expression ast.Expr, in source) {
	switch of := expression.(type) {
	case *ast.StarExpr:
		w.walk(path, of.X, in)
	case *ast.ArrayType:
		w.walk(path+"[]", of.Elt, in)
	case *ast.MapType:
		w.walk(path+"{}", of.Value, in)
	case *ast.StructType:
		for _, field := range of.Fields.List {
			w.field(path, field, in)
		}
	case *ast.SelectorExpr:
		w.named(path, in.imports[fmt.Sprint(of.X)], of.Sel.Name)
	case *ast.Ident:
		if scalar, basic := scalars[of.Name]; basic {
			w.rows[w.kind+"\t"+path+"\t"+scalar] = true
		} else {
			w.named(path, in.path, of.Name)
		}
	default:
		log.Fatalf("%s.%s: a type that is not known here: %T", w.kind, path, expression)
	}
}

func (w walker) named(path, from, name string) {
	if scalar, known := scalars[from+"."+name]; known {
		w.rows[w.kind+"\t"+path+"\t"+scalar] = true
		return
	}
	found := definitions(from)[name]
	switch {
	case found == nil:
		log.Fatalf("%s.%s: %s has no type %s", w.kind, path, from, name)
	case found.own && name == "BootstrapTokenString":
		w.rows[w.kind+"\t"+path+"\tstring"] = true
	case found.own:
		log.Fatalf("%s.%s: %s.%s reads JSON in its own way: say in `scalars` what it takes", w.kind, path, from, name)
	default:
		w.walk(path, found.expression, found.source)
	}
}

func (w walker) field(path string, field *ast.Field, in source) {
	name, options := "", ""
	if field.Tag != nil {
		text, _ := strconv.Unquote(field.Tag.Value)
		name, options, _ = strings.Cut(reflect.StructTag(text).Get("json"), ",")
	}
	switch {
	case name == "-":
	case strings.Contains(options, "inline") || (len(field.Names) == 0 && name == ""):
		if selector, is := field.Type.(*ast.SelectorExpr); !is || selector.Sel.Name != "TypeMeta" {
			w.walk(path, field.Type, in)
		}
	default:
		if name == "" {
			name = field.Names[0].Name
		}
		w.walk(strings.TrimPrefix(path+"."+name, "."), field.Type, in)
	}
}

func main() {
	log.SetFlags(0)
	var input struct{ Modules, Kinds map[string]string }
	if err := json.NewDecoder(os.Stdin).Decode(&input); err != nil {
		log.Fatal(err)
	}
	modules = input.Modules
	rows := map[string]bool{}
	for kind, of := range input.Kinds {
		dot := strings.LastIndex(of, ".")
		walker{kind, rows}.named("", of[:dot], of[dot+1:])
	}
	sorted := make([]string, 0, len(rows))
	for row := range rows {
		sorted = append(sorted, row)
	}
	sort.Strings(sorted)
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	for _, row := range sorted {
		fmt.Fprintln(out, row)
	}
}
