/* A Python extension that keeps and loses blocks: `held.plant()`. The blocks are of sizes that the
 * interpreter has few of: where its own objects lay before, stale words may still point. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdlib.h>
#include <string.h>

#define APART __attribute__((noinline, noclone))

struct node {
    struct node *next;
    char more[30304];
};

void *in_static;
char *inner;
struct node *chain;
/* More than the loader has to spare: storage of its own, made when it is first used. */
_Thread_local void *local[1024];

APART static void *of_lost(void) { return calloc(1, 30100); }
APART static void *of_static(void) { return calloc(1, 30200); }
APART static void *of_capsule(void) { return calloc(1, 30300); }
APART static char *of_middle(void) { return calloc(1, 30400); }
APART static void *of_local(void) { return calloc(1, 30500); }
APART static void *of_raw(void) { return PyMem_RawCalloc(1, 30600); }
APART static struct node *of_chain(void) { return PyMem_Calloc(1, sizeof(struct node)); }
APART static struct node *of_ring(void) { return calloc(1, sizeof(struct node)); }
/* A reference nobody gives back; the collector does not know of bytes, but of tuples it does. */
APART static PyObject *of_bytes(void) { return PyBytes_FromStringAndSize(NULL, 31000); }
APART static PyObject *of_tuple(void) { return PyTuple_New(4000); }
APART static PyObject *of_kept(void) { return PyBytes_FromStringAndSize(NULL, 32000); }

APART static void lose(void)
{
    void *volatile last;
    for (int i = 0; i < 4; i++)
        last = of_lost(); /* definite */
    for (int i = 0; i < 3; i++)
        last = of_bytes(); /* definite */
    for (int i = 0; i < 2; i++)
        last = of_raw(); /* definite */
    last = of_tuple(); /* reachable: on the collector's list */
    struct node *first = of_ring(), *second = of_ring();
    *(struct node *volatile *)&first->next = second;
    *(struct node *volatile *)&second->next = first; /* definite 1, indirect 1 */
    last = NULL;
    (void)last;
}

APART static void keep(PyObject *module)
{
    in_static = of_static();
    inner = of_middle() + 8; /* possible */
    local[1000] = of_local();
    for (int i = 0; i < 5; i++) {
        struct node *node = of_chain();
        node->next = chain;
        chain = node;
    }
    PyObject *capsule = PyCapsule_New(of_capsule(), "held", NULL);
    PyModule_AddObject(module, "capsule", capsule);
    PyModule_AddObject(module, "kept", of_kept());
}

APART static void wipe(void)
{
    volatile char room[16384];
    memset((char *)room, 0, sizeof room);
}

static PyObject *plant(PyObject *module, PyObject *unused)
{
    (void)unused;
    lose();
    keep(module);
    wipe();
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {{"plant", plant, METH_NOARGS, ""}, {NULL, NULL, 0, NULL}};
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "held", NULL, -1, methods, NULL, NULL, NULL, NULL};
PyMODINIT_FUNC PyInit_held(void) { return PyModule_Create(&definition); }
