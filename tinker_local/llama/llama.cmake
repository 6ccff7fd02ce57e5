# Compiles llama-cpp-python in a third of the time: without what tinker-local does not use. The numbers stay the same.
# The build of llama-cpp-python includes this file when pip is given, as in README.md,
#   CMAKE_ARGS="-DCMAKE_PROJECT_llama_cpp_INCLUDE='$PWD/tinker_local/llama/llama.cmake'"

if(NOT TINKER_LOCAL_IMAGES)  # CMAKE_ARGS="... -DTINKER_LOCAL_IMAGES=ON"
  set(LLAVA_BUILD OFF)  # libmtmd, for images and sound
endif()
set(LLAMA_BUILD_COMMON OFF)  # what llama.cpp's programs share: their arguments, chat parsers, HTTP

# The arithmetic is ggml's, which is compiled as ever. libllama loads files, builds graphs and fills batches.
function(tinker_local_compile_faster)
  if(NOT TARGET llama OR MSVC)
    return()
  endif()
  get_target_property(directory llama SOURCE_DIR)
  target_compile_options(llama PRIVATE -O1)
  target_precompile_headers(llama PRIVATE
    <algorithm> <array> <cmath> <cstdint> <cstdio> <cstring> <functional> <limits> <map> <memory> <mutex> <regex>
    <set> <sstream> <stdexcept> <string> <unordered_map> <unordered_set> <vector>)
  if(EXISTS "${directory}/models/models.h")
    target_precompile_headers(llama PRIVATE "${directory}/models/models.h")
  endif()
  # What walks over texts and cells keeps its speed. Precompiled headers are only for files with the same options.
  foreach(file llama-vocab llama-kv-cache llama-batch)
    set_source_files_properties("${directory}/${file}.cpp" TARGET_DIRECTORY llama PROPERTIES
      COMPILE_OPTIONS -O3 SKIP_PRECOMPILE_HEADERS ON)
  endforeach()
endfunction()
cmake_language(DEFER CALL tinker_local_compile_faster)
