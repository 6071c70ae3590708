/* Runs one signature of a SavedModel with TensorFlow's C API alone: no Python, nothing of tf_pipeline.

     load_and_run MODEL_DIR -i TENSOR... -o TENSOR... < requests > answers

   TENSOR is the name that a signature gives in saved_model.pb, such as serving_default_text:0. TensorFlow Serving loads
   models by the same C++ function that TF_LoadSessionFromSavedModel calls.

   Requests follow each other until the end of the input. A request has a tensor for every -i, in that order:

     string R D1 ... DR \n    then for each element its number of bytes, \n, these bytes as they are, \n
     int64 R D1 ... DR \n     then the elements, each followed by white space

   An answer has a tensor for every -o, in that order: the same first line (float, int32, int64 or string), then a line
   for each element: hexadecimal floats (%a), integers, or the bytes of a string as hexadecimal digits, which lose nothing. */

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensorflow/c/c_api.h"
#include "tensorflow/c/tf_tstring.h"

enum { MAX_TENSORS = 16, MAX_RANK = 8, MAX_NAME = 256 };

static void fail(const char* what, const char* why) {
  fprintf(stderr, "load_and_run: %s: %s\n", what, why);
  exit(1);
}

static void check(const char* what, TF_Status* status) {
  if (TF_GetCode(status) != TF_OK) fail(what, TF_Message(status));
}

/* Strings and lengths of a request are small enough to be read piece by piece. */
static int64_t read_integer(void) {
  int64_t value;
  if (scanf("%" SCNd64, &value) != 1) fail("request", "a number was expected");
  return value;
}

static void read_string(TF_TString* element) {
  int64_t size = read_integer();
  if (size < 0 || getchar() != '\n') fail("request", "a number of bytes and a line end were expected");
  char* bytes = malloc(size + 1);
  if (!bytes || fread(bytes, 1, size, stdin) != (size_t)size) fail("request", "a string is cut short");
  TF_StringInit(element);
  TF_StringCopy(element, bytes, size);
  free(bytes);
}

/* The next tensor of the input, or NULL at its end. */
static TF_Tensor* read_tensor(void) {
  char type[8];
  if (scanf("%7s", type) != 1) return NULL;
  int64_t rank = read_integer(), dims[MAX_RANK], count = 1;
  if (rank < 0 || rank > MAX_RANK) fail("request", "too many dimensions");
  for (int axis = 0; axis < rank; ++axis) {
    if ((dims[axis] = read_integer()) < 0) fail("request", "a dimension is negative");
    count *= dims[axis];
  }
  int text = strcmp(type, "string") == 0;
  if (!text && strcmp(type, "int64") != 0) fail("request with elements of type", type);
  size_t size = text ? sizeof(TF_TString) : sizeof(int64_t);
  TF_Tensor* tensor = TF_AllocateTensor(text ? TF_STRING : TF_INT64, dims, (int)rank, count * size);
  if (!tensor) fail("request", "not enough memory");
  for (int64_t i = 0; i < count; ++i) {
    if (text) read_string((TF_TString*)TF_TensorData(tensor) + i);
    else ((int64_t*)TF_TensorData(tensor))[i] = read_integer();
  }
  return tensor;
}

static void write_tensor(const TF_Tensor* tensor) {
  TF_DataType type = TF_TensorType(tensor);
  const char* name = type == TF_FLOAT ? "float" : type == TF_INT32 ? "int32" : type == TF_INT64 ? "int64"
                     : type == TF_STRING ? "string" : NULL;
  if (!name) fail("output", "its dtype is none of float, int32, int64 and string");
  printf("%s %d", name, TF_NumDims(tensor));
  for (int axis = 0; axis < TF_NumDims(tensor); ++axis) printf(" %" PRId64, TF_Dim(tensor, axis));
  printf("\n");
  const void* data = TF_TensorData(tensor);
  for (int64_t i = 0; i < TF_TensorElementCount(tensor); ++i) {
    if (type == TF_FLOAT) printf("%a", ((const float*)data)[i]);
    if (type == TF_INT32) printf("%" PRId32, ((const int32_t*)data)[i]);
    if (type == TF_INT64) printf("%" PRId64, ((const int64_t*)data)[i]);
    if (type == TF_STRING) {
      const TF_TString* element = (const TF_TString*)data + i;
      const unsigned char* bytes = (const unsigned char*)TF_StringGetDataPointer(element);
      for (size_t place = 0; place < TF_StringGetSize(element); ++place) printf("%02x", bytes[place]);
    }
    printf("\n");
  }
}

/* The tensor that a name such as StatefulPartitionedCall:1 means. */
static TF_Output find(TF_Graph* graph, const char* tensor) {
  char operation[MAX_NAME];
  const char* colon = strrchr(tensor, ':');
  if (!colon || colon - tensor >= MAX_NAME) fail(tensor, "not a name of a tensor, such as serving_default_text:0");
  memcpy(operation, tensor, colon - tensor);
  operation[colon - tensor] = '\0';
  TF_Output output = {TF_GraphOperationByName(graph, operation), atoi(colon + 1)};
  if (!output.oper) fail(tensor, "no such operation in the graph");
  return output;
}

int main(int argc, char** argv) {
  TF_Graph* graph = TF_NewGraph();
  TF_Status* status = TF_NewStatus();
  TF_SessionOptions* options = TF_NewSessionOptions();
  const char* tags[] = {"serve"};
  if (argc < 6 || argc % 2 != 0) fail("usage", "load_and_run MODEL_DIR -i TENSOR... -o TENSOR...");
  TF_Session* session = TF_LoadSessionFromSavedModel(options, NULL, argv[1], tags, 1, graph, NULL, status);
  check(argv[1], status);

  TF_Output inputs[MAX_TENSORS], outputs[MAX_TENSORS];
  int num_inputs = 0, num_outputs = 0;
  for (int i = 2; i + 1 < argc; i += 2) {
    if (num_inputs == MAX_TENSORS || num_outputs == MAX_TENSORS) fail(argv[i + 1], "too many tensors");
    if (strcmp(argv[i], "-i") == 0) inputs[num_inputs++] = find(graph, argv[i + 1]);
    else if (strcmp(argv[i], "-o") == 0) outputs[num_outputs++] = find(graph, argv[i + 1]);
    else fail(argv[i], "neither -i nor -o");
  }

  if (!num_inputs || !num_outputs) fail("usage", "give at least one -i and one -o");

  TF_Tensor *values[MAX_TENSORS], *results[MAX_TENSORS];
  while ((values[0] = read_tensor())) {
    for (int i = 1; i < num_inputs; ++i) {
      if (!(values[i] = read_tensor())) fail("request", "a tensor is missing");
    }
    TF_SessionRun(session, NULL, inputs, values, num_inputs, outputs, results, num_outputs, NULL, 0, NULL, status);
    check("TF_SessionRun", status);
    for (int i = 0; i < num_outputs; ++i) write_tensor(results[i]);
    for (int i = 0; i < num_outputs; ++i) TF_DeleteTensor(results[i]);
    for (int i = 0; i < num_inputs; ++i) TF_DeleteTensor(values[i]);
  }
  TF_CloseSession(session, status);
  TF_DeleteSession(session, status);
  TF_DeleteSessionOptions(options);
  TF_DeleteGraph(graph);
  TF_DeleteStatus(status);
  return fflush(stdout) == 0 && !ferror(stdout) ? 0 : 1;
}
